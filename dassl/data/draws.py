"""A random split of a person's own images: drawn once, stored, and checked against the images later."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dassl.data.dataset import SPLITS
from dassl.data.splits import VAL, Row, Rows, cut_classes, drawn_file, read_rows, write_split
from dassl.utils.errors import ConfigError, DataError, UserError
from dassl.utils.files import lock
from dassl.utils.paths import exists
from dassl.utils.tensors import HINT


@dataclass(frozen=True)
class Draw:
    """Where a random split is stored, and what it is drawn with: the shares of val and test, and the seed."""

    file: Path
    shares: tuple[float, float]
    seed: int

    def rows(self, rows: Sequence[Row]) -> Rows:
        """Return the stored split, after drawing and storing it if there is none."""
        if not rows:
            return {split: [] for split in SPLITS}
        if not exists(self.file):
            try:
                self._store(rows)
            except UserError as error:
                raise UserError(f"{error}; {HINT}") from error
        return read_rows(self.file, {})

    def names(self) -> set[str]:
        """Return the class names of the stored split; none if there is no such split."""
        return {name for own in read_rows(self.file, {}).values() for _, _, name in own} if exists(self.file) else set()

    def check_same(self, changed: Sequence[str]) -> None:
        """Raise DataError if there are images, by path, that the stored split lacks or has with another label."""
        if changed:
            raise DataError(f"{self.file} does not fit the images: {len(changed)} are not in it or have another label now, "
                            f"first {changed[0]!r}; remove the file to draw a new split")

    def _store(self, rows: Sequence[Row]) -> None:
        with lock(self.file.with_name(f".{self.file.stem}.lock"), wait=True):
            if not exists(self.file):
                val, test, train = cut_classes(rows, self.shares, "ImageFolder", self.seed)
                write_split(self.file, {"train": train, "val": val, "test": test})


def shares(node: str, val: float, test: float) -> tuple[float, float]:
    """Return the shares of val and test, where -1 for `val` is the default; ConfigError, naming `node`, if they do not fit."""
    val = VAL if val == -1 else val
    if val < 0 or val + test >= 1:
        raise ConfigError(f"{node}: VAL {val} and TEST {test} " + (
            "must not be negative" if val < 0 else "leave nothing to train on"))
    return val, test


def draw_of(root: Path, shares: tuple[float, float], seed: int, cache: Path | None, prefix: str = "split") -> Draw:
    """Return the random split of the images in `root`; for `cache` and `prefix`, see `drawn_file`."""
    return Draw(drawn_file(root, shares, seed, cache, prefix), shares, seed)
