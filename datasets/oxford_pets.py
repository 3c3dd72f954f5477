"""Oxford Pets: 7,349 photographs of 37 breeds of cats and dogs, with the official test split.

Source: Parkhi et al., "Cats and Dogs", CVPR 2012. Split into train and val: Zhou et al. (CoOp).
"""

from pathlib import Path

from dassl.data.annotations import read_pairs
from dassl.data.dataset import DATASETS, Dataset, data_folder
from dassl.data.splits import Row, Rows, SplitSource, field_split, hold_out


@DATASETS.register("OxfordPets")
def oxford_pets(root: Path, *, split: SplitSource = "published") -> Dataset:
    """Return the data set in `root/oxford_pets`."""
    splits, classnames = field_split(data_folder(root, "oxford_pets"), "OxfordPets", "images", split, _draw)
    return Dataset("OxfordPets", root, **splits, classnames=classnames, template="a photo of a {}, a type of pet.")


def _draw(folder: Path) -> Rows:
    annotations = folder / "annotations"
    return hold_out(_rows(annotations / "trainval.txt"), _rows(annotations / "test.txt"), "OxfordPets")


def _rows(file: Path) -> list[Row]:
    """Lines are "Abyssinian_100 1 1 1": image, label from 1, species, breed; the image's name starts with the breed."""
    return [(f"{image}.jpg", int(numbers.split()[0]) - 1, image.rpartition("_")[0].lower())
            for image, numbers in read_pairs(file)]
