"""Caltech101: 8,242 photographs of 100 kinds of things, in 101_ObjectCategories.

Source: Fei-Fei, Fergus and Perona, "Learning Generative Visual Models from Few Training Examples", CVPR-W 2004. Split:
Zhou et al. (CoOp), without BACKGROUND_Google and Faces_easy.
"""

from pathlib import Path

from dassl.data.dataset import DATASETS, Dataset, data_folder
from dassl.data.splits import Rows, SplitSource, field_split, folder_rows, three_way

SKIPPED = ("BACKGROUND_Google", "Faces_easy")
CLASSNAMES = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}


@DATASETS.register("Caltech101")
def caltech101(root: Path, *, split: SplitSource = "published") -> Dataset:
    """Return the data set in `root/caltech-101`."""
    folder = data_folder(root, "caltech-101")
    splits, classnames = field_split(folder, "Caltech101", "101_ObjectCategories", split, _draw)
    return Dataset("Caltech101", root, **splits, classnames=classnames, template="a photo of a {}.")


def _draw(folder: Path) -> Rows:
    return three_way(folder_rows(folder / "101_ObjectCategories", skip=SKIPPED, names=CLASSNAMES), "Caltech101")
