"""Food101: 101,000 photographs of 101 dishes.

Source: Bossard, Guillaumin and Van Gool, "Food-101: Mining Discriminative Components with Random Forests", ECCV 2014.
Split: Zhou et al. (CoOp), not the official one.
"""

from pathlib import Path

from dassl.data.dataset import DATASETS, Dataset, data_folder
from dassl.data.splits import Rows, SplitSource, field_split, folder_rows, three_way


@DATASETS.register("Food101")
def food101(root: Path, *, split: SplitSource = "published") -> Dataset:
    """Return the data set in `root/food-101`."""
    splits, classnames = field_split(data_folder(root, "food-101"), "Food101", "images", split, _draw)
    return Dataset("Food101", root, **splits, classnames=classnames, template="a photo of {}, a type of food.")


def _draw(folder: Path) -> Rows:
    return three_way(folder_rows(folder / "images"), "Food101")
