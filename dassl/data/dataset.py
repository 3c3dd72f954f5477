"""Data sets as values: which images, which labels, which classes. No pixels, no transforms."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dassl.data.places import Part
from dassl.utils.errors import ConfigError, DataError
from dassl.utils.paths import expanded, is_file, is_folder
from dassl.utils.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

DATASETS = Registry("data set", "DATASET", home="datasets", leave_out=("check", "prepare", "sources"), facts={})
SPLITS = ("train", "val", "test")
UNLABELED = -1  # the label of a train image that nobody has labeled yet


@dataclass(frozen=True)
class Datum:
    """One image: its path relative to the data root, which is also its id, and its label (in train, it may be UNLABELED).

    For an image within another file the path is a name, see `Dataset.parts`.
    """

    path: str
    label: int


@dataclass(frozen=True)
class Dataset:
    """A data set. `classnames` is given, never derived from the items, so that an empty class keeps its place.

    `template` is the zero-shot prompt of the data set, with one `{}` for the class name. `parts` gives, by path, the places of
    images that are not separate files.
    """

    name: str
    root: Path
    train: tuple[Datum, ...]
    val: tuple[Datum, ...]
    test: tuple[Datum, ...]
    classnames: tuple[str, ...]
    template: str = "a photo of a {}."
    parts: Mapping[str, Part] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in (*SPLITS, "classnames"):  # lists are compared with tuples elsewhere
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.template.count("{}") != 1:
            raise DataError(f"{self.name}: the template {self.template!r} must hold one {{}}")
        if not self.classnames:
            raise DataError(f"{self.name}: there must be at least one class name")
        for split in SPLITS:
            self._check_split(split)

    def _check_split(self, split: str) -> None:
        items = getattr(self, split)
        if not items and split == "train":
            raise DataError(f"{self.name}: the train split is empty")
        lowest = UNLABELED if split == "train" else 0
        wrong = [datum for datum in items if not lowest <= datum.label < len(self.classnames)]
        if wrong:
            raise DataError(f"{self.name}: {len(wrong)} {split} labels lie outside the {len(self.classnames)} classes, "
                            f"first {wrong[0].path!r} with {wrong[0].label}")
        twice = [path for path, count in Counter(datum.path for datum in items).items() if count > 1]
        if twice:
            raise DataError(f"{self.name}: {len(twice)} paths stand twice in {split}, first {twice[0]!r}")

    def split(self, name: str) -> tuple[Datum, ...]:
        """Return the items of "train", "val" or "test"."""
        return getattr(self, name)

    def labels(self, split: str) -> "Tensor":
        """Return the labels of a split, int64 [N]."""
        from torch import tensor  # imported here because data sets are listed without it

        return tensor([datum.label for datum in self.split(split)])

    @cached_property
    def train_rows(self) -> dict[str, int]:
        """The position of each train image, by path."""
        return {datum.path: row for row, datum in enumerate(self.train)}

    def place(self, path: str) -> Path | Part:
        """Return where the bytes of an image are, by its path."""
        return self.parts.get(path) or self.root / path

    def files(self, split: str) -> list[Path | Part]:
        """Return the places of a split's images, in its order: full paths, or parts of files."""
        return [self.place(datum.path) for datum in self.split(split)]


def check_dataset_name(name: str) -> None:
    """Raise ConfigError unless `DATASET.NAME` is a registered data set."""
    if not name:
        raise ConfigError(f"DATASET.NAME is not set; known: {', '.join(component.name for component in DATASETS)}")
    DATASETS[name]


def data_folder(root: Path, name: str) -> Path:
    """Return `root/name`; raises DataError if it is not a folder."""
    if not is_folder(root / name):
        raise DataError(f"{root / name} is not a folder; --root must name the folder that holds {name}/")
    return root / name


def named_file(root: Path, key: str, name: str) -> Path:
    """Return the path of a file that `DATASET.<key>` names; raises ConfigError if neither root nor working folder has it."""
    for path in (root / name, expanded(name)):
        if is_file(path):
            return path
    raise ConfigError(f"DATASET.{key} names the file {name!r}, which is neither in {root} nor in the working folder")
