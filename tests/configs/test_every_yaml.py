"""Every YAML of the project merges, and the command in its head comment parses."""

import shlex
from pathlib import Path

import pytest

from trainers.core import job

PROJECT = Path(__file__).parents[2]
RUNS = sorted(path.relative_to(PROJECT).as_posix() for path in (PROJECT / "configs").rglob("*.yaml")
              if "experiments" not in path.parts)


def commands(file: str) -> list[list[str]]:
    """Return the `python train.py` commands of a file's head comment, as argument lists; a backslash joins lines."""
    head = [line[1:].strip() for line in (PROJECT / file).read_text().splitlines() if line.startswith("#")]
    text = "\n".join(head).replace("\\\n", " ")
    return [shlex.split(line)[2:] for line in text.splitlines() if line.startswith("python train.py")]


@pytest.mark.parametrize("file", RUNS)
def test_yaml_merges(file):
    """Every key of the file is known and of the right type and range, and every name in it is registered."""
    cfg = job.build_config(*job.parser().parse(["--config-file", str(PROJECT / file)]))
    cfg.DATASET.NAME = cfg.DATASET.NAME or "Digits"
    job.check(cfg)


@pytest.mark.parametrize("file", RUNS)
def test_head_comment_names_a_command_that_parses(file):
    """The head comment of each file holds at least one `train.py` command; it parses, and it uses that file."""
    assert commands(file)
    assert any(file in words for words in commands(file))
    for words in commands(file):
        job.build_config(*job.parser().parse(words))
