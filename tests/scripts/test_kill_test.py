"""Rows 9 and 12 of the faults table: the short version of `scripts/kill_test.py`, and that its comparison can fail."""

import random
import shutil

import pytest

from dassl.utils.events import EVENTS
from scripts.kill_test import Outcome, compare, finish, killed
from tests import commands

WORDS = ("ACTIVE.SAMPLER", "cbsq")  # has pseudo-labels, which a restart must keep


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which an uninterrupted run has ended."""
    commands.begin()  # the server of forks is one, so that it must not be that of the script, which has imported the project
    folder = tmp_path_factory.mktemp("kills")
    finish(folder / "whole", WORDS)
    return folder


def test_a_run_killed_again_and_again_ends_as_one_that_was_not(folder):
    """Row 9: SIGKILL at two random moments, then at each named event in turn, then on to the end: every file is the same.

    None is missing, and none is left over.
    """
    for seconds in random.Random(0).sample([0.1, 0.2, 0.4, 0.8], 2):
        killed(folder / "killed", WORDS, seconds)
    hit = [killed(folder / "killed", WORDS, f"{event}:{2 if event in ('train', 'write') else 1}") for event in EVENTS]
    assert hit == list(EVENTS)
    finish(folder / "killed", WORDS)
    outcome = Outcome()
    compare(folder, outcome)
    assert (outcome.n_files, outcome.different) == (5, [])


@pytest.mark.parametrize("name", ["results.json", "prompts/round_001.safetensors", "prompts/.left.12345678.tmp"])
def test_a_difference_would_be_found(folder, tmp_path, name):
    """One changed byte of a metric or a prompt, or one file too many."""
    shutil.copytree(folder / "whole" / "run", tmp_path / "whole" / "run")
    shutil.copytree(folder / "whole" / "run", tmp_path / "killed" / "run")
    file = tmp_path / "killed" / "run" / name
    file.write_bytes(file.read_bytes().replace(b'"n_paid": 12', b'"n_paid": 13') + b" " if file.exists() else b"")
    outcome = Outcome()
    compare(tmp_path, outcome)
    assert outcome.different == [name]
