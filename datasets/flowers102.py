"""Flowers102: 8,189 photographs of 102 flowers.

Source: Nilsback and Zisserman, "Automated Flower Classification over a Large Number of Classes", ICVGIP 2008. Split: Zhou
et al. (CoOp), not the official one.
"""

from pathlib import Path

from dassl.data.annotations import read_mat
from dassl.data.dataset import DATASETS, Dataset, data_folder
from dassl.data.splits import Rows, SplitSource, field_split, three_way
from dassl.utils.errors import DataError
from dassl.utils.files import read_json

TEMPLATE = "a photo of a {}, a type of flower."


@DATASETS.register("Flowers102", also_known_as=["OxfordFlowers"])
def flowers102(root: Path, *, split: SplitSource = "published") -> Dataset:
    """Return the data set in `root/oxford_flowers`."""
    splits, classnames = field_split(data_folder(root, "oxford_flowers"), "OxfordFlowers", "jpg", split, _draw)
    return Dataset("Flowers102", root, **splits, classnames=classnames, template=TEMPLATE)


def _draw(folder: Path) -> Rows:
    """Labels of image 1, 2, ..., counted from 1, are in imagelabels.mat; their names are in CoOp's cat_to_name.json."""
    labels, names = read_mat(folder / "imagelabels.mat", "labels"), read_json(folder / "cat_to_name.json")
    unnamed = sorted({int(label) for label in labels if str(label) not in names})
    if unnamed:
        raise DataError(f"{folder / 'cat_to_name.json'} has no name for the labels {unnamed[:10]}")
    return three_way([(f"image_{number:05d}.jpg", int(label) - 1, names[str(label)])
                      for number, label in enumerate(labels, 1)], "Flowers102")
