"""What a record says about versions, commit and memory."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dassl.utils import environment as module
from dassl.utils.environment import PROJECT, commit, environment, peak_memory_mb


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout of one commit with a tag, which stands in for the project's."""
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "train.py").write_text("first\n")
    for command in ("init -q", "add .", "commit -q -m first", "tag -a v1 -m v1"):
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *command.split()], cwd=tmp_path, check=True)
    return tmp_path


def test_the_environment_goes_into_json_and_holds_what_a_table_compares():
    """Row 32 of the faults table: commit and versions are plain strings."""
    found = json.loads(json.dumps(environment()))
    assert torch.__version__.startswith(found["torch"])
    assert {"commit", "open_clip", "torchvision", "pillow", "numpy", "python", "platform"} < found.keys()
    assert found["threads"] == str(torch.get_num_threads())
    assert all(isinstance(value, str) and value for value in found.values())


def test_the_commit_is_its_hash_even_where_there_is_a_tag(checkout):
    """Two checkouts of one commit are written alike, with or without tags."""
    assert re.fullmatch(r"[0-9a-f]{40}", commit())


def test_a_changed_file_marks_the_commit_as_dirty(checkout):
    """Row 32 of the faults table: results of edited code do not pass for those of the commit."""
    (checkout / "train.py").write_text("second\n")
    assert re.fullmatch(r"[0-9a-f]{40}-dirty", commit())


def test_a_record_names_the_commit_that_was_imported(checkout):
    """Row 32 of the faults table: a process that lives for hours runs the code of its start."""
    assert environment()["commit"] == module.COMMIT != commit()


def test_without_a_checkout_the_commit_is_unknown(tmp_path, monkeypatch):
    """A downloaded archive has no history."""
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() == "unknown"


def test_without_git_the_commit_is_unknown(monkeypatch):
    """A run does not need git."""
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's memory is reported in place of this")
def test_peak_memory_is_in_mib():
    """A process that fills 50 MiB has a peak above that, and below 100 GiB: neither bytes nor KiB."""
    filled = np.ones(50 * 2**20, dtype=np.uint8)
    assert len(filled) / 2**20 < peak_memory_mb() < 100 * 2**10


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what a process alone has held")
def test_a_process_does_not_report_the_memory_of_who_started_it():
    """`getrusage` would: between fork and exec a child is as large as its parent, and a sweep's cells are children."""
    held = np.ones(2**26)  # 0.5 GiB
    code = "from dassl.utils.environment import forget_peak, peak_resident_mb; forget_peak(); print(peak_resident_mb())"
    found = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert float(found.stdout) < held.nbytes / 2**20 / 2
