"""Importing all modules of a package."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dassl.utils.plugins import import_all


@pytest.fixture
def package(tmp_path, monkeypatch) -> Iterator[Path]:
    """The folder of an importable package whose modules note their import in `package.imported`."""
    folder = tmp_path / "some_components"
    folder.mkdir()
    (folder / "__init__.py").write_text("imported = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == folder.name]:
        del sys.modules[name]


def add(package: Path, name: str, text: str = "") -> None:
    (package / name).write_text(f"from {package.name} import imported\nimported.append(__name__)\n{text}")


def test_every_module_is_imported_in_the_order_of_names(package):
    """Dropping a file into the folder is enough. Private files and other kinds of files are ignored."""
    for name in ("b.py", "a.py", "_private.py", "c.txt"):
        add(package, name)
    import_all(package.name, [str(package)])
    assert sys.modules[package.name].imported == ["some_components.a", "some_components.b"]


def test_a_broken_module_is_not_passed_over(package):
    """A sampler that cannot be imported must not look like one that does not exist."""
    add(package, "a.py", "raise ImportError('no such library')\n")
    with pytest.raises(ImportError, match="no such library"):
        import_all(package.name, [str(package)])
