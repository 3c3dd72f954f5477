"""UCF101: the middle frames of 13,320 videos of 101 human actions.

Source: Soomro, Zamir and Shah, "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild", 2012. Frames and
split: Zhou et al. (CoOp), from the official list 01.
"""

import re
from pathlib import Path

from dassl.data.annotations import read_lines, read_pairs
from dassl.data.dataset import DATASETS, Dataset, data_folder
from dassl.data.splits import Row, Rows, SplitSource, field_split, hold_out, labels_of


@DATASETS.register("UCF101")
def ucf101(root: Path, *, split: SplitSource = "published") -> Dataset:
    """Return the data set in `root/ucf101`."""
    splits, classnames = field_split(data_folder(root, "ucf101"), "UCF101", "UCF-101-midframes", split, _draw)
    return Dataset("UCF101", root, **splits, classnames=classnames, template="a photo of a person doing {}.")


def _draw(folder: Path) -> Rows:
    lists = folder / "ucfTrainTestlist"
    actions = [name for _, name in read_pairs(lists / "classInd.txt")]  # "1 ApplyEyeMakeup"
    train, test = (_rows(lists / f"{split}list01.txt", actions) for split in ("train", "test"))
    return hold_out(train, test, "UCF101")


def _rows(file: Path, actions: list[str]) -> list[Row]:
    """Lines are "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", in the train list followed by the label."""
    videos = [line.split()[0].split("/") for line in read_lines(file)]
    labels = labels_of([action for action, _ in videos], actions, file)
    names = ["_".join(re.findall("[A-Z][^A-Z]*", action)) for action, _ in videos]
    frames = [f"{name}/{Path(video).stem}.jpg" for name, (_, video) in zip(names, videos, strict=True)]
    return list(zip(frames, labels, names, strict=True))
