"""Atomic writes and locks."""

import contextlib
import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dassl.utils import files
from dassl.utils.errors import DataError, UserError
from dassl.utils.files import atomic_path, lock, new_folder, read_json, sha256_of, write_json, write_text

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def old(tmp_path) -> Path:
    """A file that holds "old"."""
    path = tmp_path / "file.txt"
    write_text(path, "old")
    return path


def assert_only(path: Path, content: str) -> None:
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.read_text() == content


@contextlib.contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """Let no file grow beyond some bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_a_finished_write_replaces_the_file_and_leaves_nothing_else(old):
    """The new content stands under the name, and the temporary file is gone."""
    write_text(old, "new")
    assert_only(old, "new")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_write_that_is_broken_off_leaves_the_old_file(old, error):
    """Row 9 of the faults table: what was there stays whole, without a half-written neighbor."""
    with pytest.raises(error), atomic_path(old) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert_only(old, "old")


def test_nobody_sees_a_half_written_file(old):
    """Until the write is finished a reader finds the old content."""
    with atomic_path(old) as temporary:
        temporary.write_text("half of the n")
        assert old.read_text() == "old"


@pytest.mark.parametrize("write", [
    lambda path: path.write_bytes(bytes(5000)),
    lambda path: save_file({"a": torch.zeros(5000)}, path),
], ids=["bytes", "safetensors"])
def test_a_full_disk_is_named_and_leaves_the_old_file(old, write):
    """Row 11 of the faults table, whichever library does the writing."""
    with pytest.raises(UserError) as caught, full_disk(1000), atomic_path(old) as temporary:
        write(temporary)
    assert str(old) in str(caught.value)
    assert "File too large" in str(caught.value)
    assert_only(old, "old")


@pytest.mark.parametrize("name", ["n" * 300, "file.txt/below", f"{'n' * 300}/file"])
def test_a_path_that_cannot_be_written_is_named(old, name):
    """Row 11 of the faults table: too long a name, a file where a folder should be."""
    with pytest.raises(UserError) as caught:
        write_text(old.parent / name, "new")
    assert str(old.parent / name) in str(caught.value)
    assert_only(old, "old")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named_and_leaves_the_old_file(old):
    """Row 11 of the faults table."""
    old.parent.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot write .*file\.txt: Permission denied"):
        write_text(old, "new")
    old.parent.chmod(0o700)
    assert_only(old, "old")


@pytest.mark.parametrize("name", ["n" * 255, "名" * 85])
def test_the_longest_name_a_folder_allows_can_be_written(tmp_path, name):
    """The temporary name is no longer than the name itself may be: 255 bytes."""
    write_text(tmp_path / name, "new")
    assert_only(tmp_path / name, "new")


def test_halves_of_characters_are_written_as_unknown_ones(tmp_path):
    """JSON from elsewhere may hold them. Bytes of file names that are not text are kept (row 22)."""
    write_text(tmp_path / "a", "a\ud800b\udce9")
    assert (tmp_path / "a").read_bytes() == b"a\xef\xbf\xbdb\xe9"


@pytest.mark.parametrize("read", [read_json, sha256_of])
@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "long", "folder", "gone"])
def test_what_cannot_be_read_is_one_line_at_once(tmp_path, read, kind):
    """Row 14: a pipe in place of a file is not a reason to wait, and a file that has gone meanwhile gives no traceback."""
    path = tmp_path / ("a" * 256 if kind == "long" else kind)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind in ("device", "loop"):
        path.symlink_to("/dev/zero" if kind == "device" else path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(DataError, match=r"^cannot read .*: ") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "long", "folder"])
def test_a_lock_that_is_no_file_is_refused_at_once(tmp_path, kind):
    """Row 12: opening a pipe would block forever."""
    path = tmp_path / ("a" * 256 if kind == "long" else kind)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind in ("device", "loop"):
        path.symlink_to("/dev/null" if kind == "device" else path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=r"^cannot (write|look at) .*: "), lock(path, wait=True):
        pass


def test_missing_folders_are_made(tmp_path):
    """A file several folders down can be written at once."""
    write_text(tmp_path / "a" / "b" / "file", "new")
    assert_only(tmp_path / "a" / "b" / "file", "new")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(old, mask, mode):
    """Whoever may read the user's files may read a record. A temporary file would be readable by its writer only."""
    with umask(mask):
        write_text(old, "new")
        assert os.umask(mask) == mask
    assert old.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9.jpg"), "a\nb\u2028'\"\\.jpg", "\U0001f431 e\u0301 \u00e9"])
def test_odd_file_names_round_trip_through_json(tmp_path, name):
    """Row 22 of the faults table: names that are not UTF-8, line breaks, quotes, emoji, the two forms of an accent."""
    write_json(tmp_path / "names.json", {name: [name]})
    assert read_json(tmp_path / "names.json") == {name: [name]}


def test_names_that_are_not_utf8_keep_their_bytes_in_text(tmp_path):
    """Row 22 of the faults table."""
    write_text(tmp_path / "names.txt", os.fsdecode(b"caf\xe9"))
    assert (tmp_path / "names.txt").read_bytes() == b"caf\xe9"


def test_json_refuses_nan_and_leaves_the_old_file(old):
    """NaN is no JSON; other readers would fail on it later."""
    with pytest.raises(ValueError, match="JSON"):
        write_json(old, {"loss": float("nan")})
    assert_only(old, "old")


@pytest.mark.parametrize(("content", "reason"), [
    (None, "cannot read .*: No such file"), (b"", "not a JSON file"), (b'{"a": 1', "not a JSON file"),
    (b"\xff", "not a JSON file")])
def test_a_json_file_that_cannot_be_read_is_named(tmp_path, content, reason):
    """It may be missing, empty, cut off or not text: each gives a DataError with the path."""
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_the_hash_of_a_file_longer_than_a_block_is_that_of_its_bytes(tmp_path):
    """The value for a million letters "a" is the one published with SHA-2, so twice that crosses a block's end."""
    (tmp_path / "a").write_bytes(b"a" * 1_000_000)
    (tmp_path / "b").write_bytes(b"a" * (1 << 20) + b"b")
    assert sha256_of(tmp_path / "a") == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    assert sha256_of(tmp_path / "b") != sha256_of(tmp_path / "a")


HOLD = """
import sys
from pathlib import Path
from dassl.utils.files import lock
with lock(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def holder(path: Path, code: str = HOLD) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock until it reads a line."""
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_free_to_go_on_once_the_first_was_killed(tmp_path):
    """Rows 9 and 12 of the faults table: the lock names the folder, and kill -9 leaves none behind."""
    path = tmp_path / "run" / ".lock"
    with holder(path) as process:
        with pytest.raises(UserError, match=f"another process is at work in {path.parent}"), lock(path, wait=False):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with lock(path, wait=False):
            pass


def test_who_waits_says_so_and_gets_its_turn(tmp_path, monkeypatch):
    """Row 12 of the faults table: the second of two writers of one cache waits for the first, and a line says so."""
    said = []
    with holder(tmp_path / ".lock") as process:

        def info(message: str, *arguments: object) -> None:
            said.append(message % arguments)
            process.communicate("go on\n")

        monkeypatch.setattr(files.logger, "info", info)
        with lock(tmp_path / ".lock", wait=True):
            assert process.returncode == 0
    assert said == [f"waiting for another process at work in {tmp_path}"]


FORK = """
import os, signal, sys
from pathlib import Path
from dassl.utils.files import lock
with lock(Path(sys.argv[1]), wait=False):
    if os.fork() == 0:
        print("held", flush=True)  # by the forked process: before it runs, its copy of the lock is open still
        sys.stdin.readline()
        os._exit(0)
    signal.pause()
"""


def test_a_lock_is_not_held_by_processes_that_its_holder_forked(tmp_path):
    """Row 9: loader workers outlive a killed run for seconds; the same command must not find "another process at work"."""
    with holder(tmp_path / ".lock", FORK) as process:
        process.kill()
        process.wait()
        with lock(tmp_path / ".lock", wait=False):
            pass


@pytest.mark.parametrize("taken", [True, False])
def test_nothing_is_written_to_what_took_the_place_of_a_locked_folder(tmp_path, taken):
    """A run whose folder was moved away says so. Neither a new folder of that name nor its record is touched or made."""
    run = tmp_path / "run"
    with lock(run / ".lock", wait=False):
        write_text(run / "results.json", "mine")
        run.rename(tmp_path / "aside")
        if taken:
            run.mkdir()
            (run / ".lock").touch()
            (run / "results.json").write_text("another's")
        with pytest.raises(UserError, match=f"{run} was moved away or replaced while this process was at work in it"):
            write_text(run / "prompts" / "round_000.safetensors", "mine")
        write_text(tmp_path / "elsewhere", "is free")
    assert run.exists() == taken and (not taken or (run / "results.json").read_text() == "another's")
    assert not (run / "prompts").exists() and (tmp_path / "aside" / "results.json").read_text() == "mine"
    write_text(run / "results.json", "the lock is gone, and with it the watch")


def test_a_folder_that_was_moved_away_meanwhile_is_not_held(tmp_path, monkeypatch):
    """Rows 12 and 13 of the faults table: a lock on the moved file would guard another folder than the one written to."""
    path, flock = tmp_path / "run" / ".lock", fcntl.flock

    def moved_first(*arguments):
        if not (tmp_path / "aside").exists():
            path.parent.rename(tmp_path / "aside")
            path.parent.mkdir()
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", moved_first)
    with pytest.raises(UserError, match=f"another process is at work in {path.parent}"), lock(path, wait=False):
        pass


WITHOUT_LOCKS = """
import errno, fcntl, os
def flock(*_):
    raise OSError(errno.{name}, os.strerror(errno.{name}))
fcntl.flock = flock
"""


@pytest.mark.parametrize("name", ["ENOLCK", "ENOTSUP", "ENOSYS"])
def test_a_file_system_without_locks_is_locked_by_a_file(tmp_path, monkeypatch, name):
    """Some network mounts have none. A second process is still refused, and nobody waits for a killed one."""

    def flock(*_):
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(fcntl, "flock", flock)
    path = tmp_path / "run" / ".lock"
    with holder(path, WITHOUT_LOCKS.format(name=name) + HOLD) as process:
        with pytest.raises(UserError, match=f"another process is at work in {path.parent}"), lock(path, wait=False):
            pass
        process.kill()
        process.wait()
        for _ in range(2):
            with lock(path, wait=True):
                write_text(path.parent / "results.json", "mine")


def test_a_lock_that_the_system_refuses_is_named(tmp_path, monkeypatch):
    """For an error other than "no locks here" there is one line with the path."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    path = tmp_path / ".lock"
    with pytest.raises(UserError, match=f"cannot write {path}: Input/output error"), lock(path, wait=True):
        pass


def test_a_lock_is_freed_by_an_error(tmp_path):
    """A failed round does not keep the next one out."""
    with pytest.raises(ValueError, match="failed"), lock(tmp_path / ".lock", wait=False):
        raise ValueError("failed")
    with lock(tmp_path / ".lock", wait=False):
        pass


def test_a_lock_that_cannot_be_made_is_named(old):
    """Row 11 of the faults table."""
    with pytest.raises(UserError, match=f"cannot write {old}/.lock"), lock(old / ".lock", wait=False):
        pass


@pytest.mark.parametrize("name", ["new", "empty", "deep/er"])
def test_a_new_folder_is_whole(tmp_path, name):
    """It gets its name at the end. An empty folder of that name counts as none."""
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / name) as temporary:
        (temporary / "a.txt").write_text("a")
        assert not (tmp_path / name / "a.txt").exists()
    assert (tmp_path / name / "a.txt").read_text() == "a" and os.access(tmp_path / name, os.X_OK)
    assert [path.name for path in (tmp_path / name).parent.iterdir() if path.suffix == ".tmp"] == []


def test_a_new_folder_that_fails_is_not_there(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "new") as temporary:
        (temporary / "a.txt").write_text("a")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_not_new(old):
    """Neither is a file, nor a path inside one."""
    for place, said in ((old.parent, "holds files already"), (old, "Not a directory"), (old / "below", "cannot write")):
        with pytest.raises(UserError, match=said), new_folder(place):
            pass
    assert list(old.parent.iterdir()) == [old]
