"""SUN397: 39,700 photographs of 397 scenes, with the official partition 01.

Source: Xiao et al., "SUN Database: Large-scale Scene Recognition from Abbey to Zoo", CVPR 2010. Split of the train part
and class names: Zhou et al. (CoOp).
"""

from pathlib import Path

from dassl.data.annotations import read_lines
from dassl.data.dataset import DATASETS, Dataset, data_folder
from dassl.data.splits import Row, Rows, SplitSource, field_split, hold_out, labels_of


@DATASETS.register("SUN397")
def sun397(root: Path, *, split: SplitSource = "published") -> Dataset:
    """Return the data set in `root/sun397`."""
    splits, classnames = field_split(data_folder(root, "sun397"), "SUN397", "SUN397", split, _draw)
    return Dataset("SUN397", root, **splits, classnames=classnames, template="a photo of a {}.")


def _draw(folder: Path) -> Rows:
    scenes = read_lines(folder / "ClassName.txt")  # "/a/apartment_building/outdoor"
    train, test = (_rows(folder / f"{part}_01.txt", scenes) for part in ("Training", "Testing"))
    return hold_out(train, test, "SUN397")


def _rows(file: Path, scenes: list[str]) -> list[Row]:
    """Lines are "/a/abbey/sun_aaalbzqrimafwbiv.jpg"; "/a/apartment_building/outdoor" is named "outdoor apartment_building"."""
    images = [(line, line.rpartition("/")[0]) for line in read_lines(file)]
    labels = labels_of([scene for _, scene in images], scenes, file)
    return [(image.lstrip("/"), label, " ".join(reversed(scene.split("/")[2:])))
            for (image, scene), label in zip(images, labels, strict=True)]
