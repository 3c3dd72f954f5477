"""The arrows of the layout, the use of `print`, and the requirements, held by reading the code's own imports."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dassl.utils import run_folder

PROJECT = Path(__file__).parents[1]
OURS = ("dassl", "trainers", "active", "datasets")
ALLOWED = {folder: {folder, "dassl"} for folder in OURS}
JOINS = PROJECT / "trainers/core/job.py"  # which makes a run of what all of them give, for train.py and sweeps
PACKAGES = {"open_clip": "open_clip_torch", "yaml": "pyyaml", "sklearn": "scikit-learn", "PIL": "pillow", "faiss": "faiss-gpu"}
OPTIONAL = {"tensorboard"}  # asked for by a key alone, and said to be missing where it is


def modules(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((PROJECT / folder).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize("folder", OURS)
def test_arrows_point_one_way(folder):
    """active -> dassl, trainers -> dassl, datasets -> dassl; nothing of the project else."""
    for path in modules(folder):
        if path == JOINS:
            continue
        reached = {name.split(".")[0] for name in imported(path)} & {*OURS, "train", "scripts", "tests"}
        assert reached <= ALLOWED[folder], path


def test_open_clip_is_known_where_clip_is():
    """The core and the loop know nothing of open_clip; of the trainers, only loading and encoders do."""
    knowing = [path.name for path in modules("dassl", "active", "trainers")
               if any(name.split(".")[0] == "open_clip" for name in imported(path))]
    assert knowing == ["backbones.py", "frozen_clip.py"]


def test_nothing_but_logging_speaks():
    """No `print` call outside of scripts and command-line entry points."""
    speaking = [path.relative_to(PROJECT).as_posix() for path in modules(*OURS)
                if "__main__" not in path.read_text() and re.search(r"(?<![\w.])print\(", path.read_text())]
    assert speaking == []


def test_requirements_name_what_is_imported_and_nothing_else():
    """Every third-party package that the project imports stands in requirements.txt, and every line there is imported."""
    lines = [line.split("#")[0].strip() for line in (PROJECT / "requirements.txt").read_text().splitlines()]
    required = {re.split(r"[<>=!~;\[ ]", line)[0].lower() for line in lines if line}
    required = {"faiss-gpu" if name == "faiss-cpu" else name for name in required}
    files = [*modules(*OURS, "scripts", "benchmarks"), PROJECT / "train.py"]
    tops = {name.split(".")[0] for path in files for name in imported(path)}
    foreign = tops - set(sys.stdlib_module_names) - {*OURS, "scripts", "benchmarks", "train", "pytest", *OPTIONAL}
    assert {PACKAGES.get(name, name).lower() for name in foreign} == required


def test_the_names_of_a_run_s_files_live_once():
    """Who writes, reads or skips a file takes its name from one place, so that none of them misses a change."""
    names = {run_folder.RESULTS, run_folder.LOG, run_folder.CURVE, run_folder.FAILED}
    files = [*modules(*OURS, "scripts"), PROJECT / "train.py"]
    saying = {path.relative_to(PROJECT).as_posix() for path in files
              if names & {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}}
    assert saying == {"dassl/utils/run_folder.py"}
