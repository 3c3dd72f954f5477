"""DTD: 5,640 photographs of 47 kinds of texture.

Source: Cimpoi et al., "Describing Textures in the Wild", CVPR 2014. Split: Zhou et al. (CoOp), not one of the ten official.
"""

from pathlib import Path

from dassl.data.dataset import DATASETS, Dataset, data_folder
from dassl.data.splits import Rows, SplitSource, field_split, folder_rows, three_way


@DATASETS.register("DTD", also_known_as=["DescribableTextures"])
def dtd(root: Path, *, split: SplitSource = "published") -> Dataset:
    """Return the data set in `root/dtd`."""
    splits, classnames = field_split(data_folder(root, "dtd"), "DescribableTextures", "images", split, _draw)
    return Dataset("DTD", root, **splits, classnames=classnames, template="{} texture.")


def _draw(folder: Path) -> Rows:
    return three_way(folder_rows(folder / "images"), "DTD")
