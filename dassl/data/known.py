"""The names that people may write: paths of images and class names, and variants that can mean only one of them."""

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property


class Known:
    """The paths and class names that a table of labels may hold, and other words that stand for a code."""

    def __init__(self, paths: Collection[str], classnames: Sequence[str], words: Mapping[str, int] | None = None):
        self.classnames = classnames
        self.code_of = {name: label for label, name in enumerate(classnames)} | dict(words or {})
        self.paths, self.classes = Names(paths, path_key), Names(self.code_of, class_key)

    def meant(self, path: str, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the paths and the classes that a row may mean."""
        return self.paths.meant(path), self.classes.meant(name) if name else ()

    def holds(self, path: str, name: str) -> bool:
        """Tell whether the path of a row and its class, if it has one, are known."""
        paths, classes = self.meant(path, name)
        return bool(paths) and bool(classes or not name)


class Names:
    """Names, and variants that differ from them only in what `key` leaves out."""

    def __init__(self, names: Collection[str], key: Callable[[str], str]):
        self._names, self._key = frozenset(names), key

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in sorted(self._names):
            found.setdefault(self._key(name), []).append(name)
        return found

    def meant(self, text: str) -> tuple[str, ...]:
        """Return the names that a text may stand for: the identical one, else all names with the same key; none if unknown.

        An apostrophe before a spreadsheet formula is not part of the name.
        """
        bare = text[1:] if re.match(r"'+[=+\-@\t\r]", text) else text
        for exact in (bare, text):
            if exact in self._names:
                return (exact,)
        return tuple(self._by_key.get(self._key(bare), ()))


def path_key(path: str) -> str:
    """Return a path normalized for what programs change: Unicode form, direction of slashes, `./` and blanks around it."""
    return re.sub(r"^(\./+)+", "", unicodedata.normalize("NFC", path).replace("\\", "/").strip())


def class_key(name: str) -> str:
    """Return a class name normalized in case, Unicode form, and blanks for underscores."""
    return " ".join(unicodedata.normalize("NFKC", name).replace("_", " ").casefold().split())
