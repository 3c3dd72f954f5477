"""Looking at paths: there is an answer or an error, never a wait or a traceback."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dassl.utils import paths
from dassl.utils.errors import UserError
from dassl.utils.paths import check_file, exists, expanded, files_below, is_file, is_folder, open_file, resolved

TOO_LONG = "a" * 256


@pytest.fixture
def odd(tmp_path) -> dict[str, Path]:
    """Paths that are not ordinary files, by what they are."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "nothing").symlink_to("/dev/null")
    (tmp_path / "folder").mkdir()
    return {"absent": tmp_path / "absent", "long": tmp_path / TOO_LONG, "nul": tmp_path / "a\0",
            "half": tmp_path / "\ud800", **{path.name: path for path in tmp_path.iterdir()}}


@pytest.mark.parametrize("kind", ["pipe", "socket", "loop", "endless", "nothing", "folder", "absent", "long", "nul", "half"])
def test_what_is_no_ordinary_file_is_an_error_of_the_system_at_once(odd, kind):
    """Whoever reads files handles OSError; nothing waits for the other end of a pipe (row 14)."""
    for look in (open_file, check_file):
        with pytest.raises(OSError, match=r"."):
            look(odd[kind])


def test_an_ordinary_file_is_read_through_links(tmp_path):
    """A data root may be full of links."""
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    with open_file(tmp_path / "link") as file:
        assert file.read() == b"abc"


@pytest.mark.parametrize(("kind", "answers"), [
    ("pipe", (True, False, False)), ("nothing", (True, False, False)), ("folder", (True, False, True)),
    ("absent", (False, False, False))])
def test_what_lies_there_is_told(odd, kind, answers):
    """Only an ordinary file is a file."""
    assert (exists(odd[kind]), is_file(odd[kind]), is_folder(odd[kind])) == answers


@pytest.mark.parametrize("kind", ["loop", "long", "nul", "half"])
def test_what_the_system_cannot_tell_is_one_line(odd, kind):
    """`Path.exists` would raise for some and say no for others, and writing would then fail."""
    for look in (exists, is_file, is_folder):
        with pytest.raises(UserError, match=r"^cannot look at .*: ") as caught:
            look(odd[kind])
        assert str(caught.value).isprintable()


def test_a_folder_that_may_not_be_looked_into_is_one_line(tmp_path, monkeypatch):
    """It must not be reported as an absent file, even to a user who is not root."""

    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(paths.os, "stat", refused)
    with pytest.raises(UserError, match=r"a/b: Permission denied"):
        exists("a/b")


@pytest.fixture
def deepest(tmp_path) -> Iterator[Path]:
    """The innermost of 1,100 nested folders; they are gone afterwards, since pytest cannot remove them."""
    deepest = tmp_path.joinpath(*["d"] * 1100)
    for above in (*reversed(deepest.parents[:1100]), deepest):
        above.mkdir(exist_ok=True)
    yield deepest
    for file in deepest.iterdir():
        file.unlink()
    for folder in (deepest, *deepest.parents[:1099]):
        folder.rmdir()


def test_files_are_found_at_any_depth(tmp_path, deepest):
    """1,100 nested folders are deeper than Python recurses; links are not followed, so that no loop is endless."""
    (deepest / "results.json").touch()
    (deepest / "up").symlink_to(tmp_path)
    (tmp_path / "results.json").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "results.json").touch()
    found, faults = files_below(tmp_path, ["results.json"])
    assert [len(path.relative_to(tmp_path).parts) for path in found] == [2, 1101] and faults == []


def test_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    """The other folders are still searched."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(paths.os, "scandir", refusing)
    assert files_below(tmp_path, "x") == ([tmp_path / "b" / "x"],
                                          [f"cannot read the folder {tmp_path / 'a'}: Permission denied"])


def test_unknown_users_and_links_to_themselves_stay_as_they_are(odd):
    """`Path.expanduser` and, before Python 3.13, `Path.resolve` would raise RuntimeError."""
    assert expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x") and expanded("~/x") == Path.home() / "x"
    assert resolved(odd["loop"]).name == "loop"
