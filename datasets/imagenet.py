"""ImageNet: 1,281,167 train images of 1,000 classes; the official validation images are the test split, and val is empty.

Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015. Class names: CLIP's, as in CoOp
(two names stand for two classes each).
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from dassl.data.annotations import read_pairs
from dassl.data.dataset import DATASETS, Dataset, Datum, data_folder
from dassl.data.folders import image_files, subfolders
from dassl.utils.errors import DataError, did_you_mean


@DATASETS.register("ImageNet")
def imagenet(root: Path) -> Dataset:
    """Return the data set in `root/imagenet`; the labels are in the order of the class folders (n01440764, ...).

    Raises DataError unless `images/train` and `images/val` hold a folder for each class of `classnames.txt`, and no other.
    """
    names = _classnames(data_folder(root, "imagenet") / "classnames.txt")
    train, test = (_datums(root, f"imagenet/images/{part}", names) for part in ("train", "val"))
    return Dataset("ImageNet", root, train, (), test, classnames=tuple(names.values()))


def _classnames(file: Path) -> dict[str, str]:
    """Return the class names by folder, sorted: "n01440764 tench" is a line of the file."""
    pairs = sorted(read_pairs(file))
    if twice := [folder for folder, count in Counter(folder for folder, _ in pairs).items() if count > 1]:
        raise DataError(f"{file}: {len(twice)} folders stand twice, first {twice[0]!r}")
    return dict(pairs)


def _datums(root: Path, image_dir: str, names: Mapping[str, str]) -> tuple[Datum, ...]:
    found = subfolders(root / image_dir)
    if unknown := sorted(set(found) - names.keys()):
        raise DataError(f"{root / image_dir}: {len(unknown)} folders are not in classnames.txt, first {unknown[0]!r}; "
                        + did_you_mean(unknown[0], sorted(names.keys() - set(found)) or names))
    if missing := [folder for folder in names if folder not in found]:
        raise DataError(f"{root / image_dir}: {len(missing)} classes of classnames.txt have no folder, first {missing[0]!r}")
    return tuple(Datum(f"{image_dir}/{folder}/{file}", label)
                 for label, folder in enumerate(names) for file in image_files(root / image_dir / folder))
