"""Digits: 1,797 real handwritten digits of 8x8 pixels that ship inside scikit-learn.

Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998 (the test part, 13 writers),
as `sklearn.datasets.load_digits`. CC BY 4.0. The images are written once, as PNG files, below the data root, so that they
are treated like any other data set. The split is fixed: 1,197 train, 150 val, 450 test, stratified.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from dassl.data.dataset import DATASETS, Dataset
from dassl.data.folders import image_files, subfolders
from dassl.data.splits import read_split, write_split
from dassl.utils.errors import DataError
from dassl.utils.files import lock
from dassl.utils.paths import exists, is_folder
from dassl.utils.text import printable

CLASSNAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@DATASETS.register("Digits")
def digits(root: Path) -> Dataset:
    """Return the data set; its images lie in `root/digits/images`, where they are written if they are missing."""
    folder = root / "digits"
    if is_folder(root) and not exists(folder / "split_digits.json"):
        _check_free(root)
    with lock(folder / ".lock", wait=True):
        if not exists(folder / "split_digits.json"):
            _write(folder)
    splits, _ = read_split(folder / "split_digits.json", "digits/images")
    return Dataset("Digits", root, **splits, classnames=CLASSNAMES, template="a photo of the digit {}.")


def _check_free(root: Path) -> None:
    """Raise DataError if a root holds images of its own, directly or in its folders: digits among them would be photos."""
    if own := next((name for folder in ("", *subfolders(root)) if folder != "digits"
                    for name in image_files(root / folder)), None):
        raise DataError(f"{root} holds images of its own, such as {printable(own)}, and Digits would write 1,797 more below "
                        "it; for a folder of photos give DATASET.NAME ImageFolder, for the digits another --root")


def _write(folder: Path) -> None:
    """Write the images and then, as a sign that all are there, the split file."""
    from sklearn.datasets import load_digits  # imported here because it takes long
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    paths = [f"{CLASSNAMES[label]}/{row:04d}.png" for row, label in enumerate(bunch.target)]
    for path, image in zip(paths, bunch.images, strict=True):
        (folder / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        grey = (image * (255 / 16)).round().astype(np.uint8)  # 17 levels to 256
        Image.fromarray(grey).save(folder / "images" / path)
    rows = [(path, int(label), CLASSNAMES[label]) for path, label in zip(paths, bunch.target, strict=True)]
    rest, test = train_test_split(rows, test_size=450, random_state=0, stratify=bunch.target)
    train, val = train_test_split(rest, test_size=150, random_state=0, stratify=[row[1] for row in rest])
    write_split(folder / "split_digits.json", {"train": sorted(train), "val": sorted(val), "test": sorted(test)})
