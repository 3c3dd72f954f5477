"""ImageNet: 1,281,167 train images of 1,000 classes; the official validation images are the test split, and val is empty.

Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015. Class names: CLIP's, as in CoOp
(two names stand for two classes each).
"""

from pathlib import Path

from dassl.data.annotations import read_pairs
from dassl.data.dataset import DATASETS, Dataset, Datum, data_folder
from dassl.data.splits import image_files


@DATASETS.register("ImageNet")
def imagenet(root: Path) -> Dataset:
    """Return the data set in `root/imagenet`; the labels are in the order of the class folders (n01440764, ...)."""
    classnames = dict(sorted(read_pairs(data_folder(root, "imagenet") / "classnames.txt")))  # "n01440764 tench"
    train, test = (_datums(root, f"imagenet/images/{part}", list(classnames)) for part in ("train", "val"))
    return Dataset("ImageNet", root, train, (), test, classnames=tuple(classnames.values()))


def _datums(root: Path, image_dir: str, folders: list[str]) -> tuple[Datum, ...]:
    return tuple(Datum(f"{image_dir}/{folder}/{file}", label)
                 for label, folder in enumerate(folders) for file in image_files(root / image_dir / folder))
