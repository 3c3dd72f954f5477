"""Random streams by purpose."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dassl.utils.seeding import drawn_seed, rng_for, seed_for, use_deterministic_algorithms

PROJECT = Path(__file__).parents[2]


def draws(*key: int | str) -> np.ndarray:
    return rng_for(*key).random(1000)


def test_a_stream_is_repeated_by_its_key():
    """Whatever was drawn in between."""
    first = draws(1, "batches", 0)
    draws(1, "select", 0)
    assert np.array_equal(draws(1, "batches", 0), first)


@pytest.mark.parametrize("other", [
    (0, "batches", 0), (2, "batches", 0), (1, "select", 0), (1, "batches", 1), (1, "batches"), (1, "batches", 0, 0),
    (1, "batches", "0")])
def test_a_stream_of_another_seed_purpose_or_round_is_independent(other):
    """Row 16 of the faults table: no two streams are equal, shifted or correlated; 0 is a seed like any other."""
    one, two = draws(1, "batches", 0), draws(*other)
    assert not np.intersect1d(one, two).size
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.15


def test_key_parts_do_not_run_into_each_other():
    """Round 1 of epoch 11 is another stream than round 11 of epoch 1."""
    keys = [(1, "a", 1, 11), (1, "a", 11, 1), (11, "a", 1, 1), (1, "a", "1, 11"), (1, "a1", 11), (1, "a", 111)]
    assert len({seed_for(*key) for key in keys}) == len(keys)


@pytest.mark.parametrize(("key", "seed"), [
    ((0, "batches", 0), 2193414100567496438), ((1, "view", 3, "caf\udce9.jpg"), 4384457526256308258),
    ((1, "view", 3, "café.jpg"), 8938847395652351363)])
def test_a_seed_is_the_same_on_every_machine(key, seed):
    """The values are fixed: a change of them changes every published number."""
    assert seed_for(*key) == seed


@pytest.mark.starts
@pytest.mark.parametrize("variables", [
    {"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "LC_ALL": "C", "PYTHONOPTIMIZE": "1"}], ids=str)
def test_a_seed_does_not_depend_on_the_environment(variables):
    """Row 30 of the faults table: hash seed, locale and -O change nothing."""
    code = "from dassl.utils.seeding import seed_for; print(seed_for(7, 'view', 2, 'caf\\u00e9.jpg'))"
    answer = subprocess.run([sys.executable, "-c", code], env=os.environ | variables, text=True,
                            capture_output=True, check=True).stdout
    assert int(answer) == seed_for(7, "view", 2, "café.jpg")


def test_seeds_fit_torchs_and_numpys_generators():
    """They have 63 bits, are not negative, and use the whole range."""
    seeds = [seed_for(0, "view", row) for row in range(2000)]
    assert 0 <= min(seeds) < 2**54
    assert 2**63 - 2**54 < max(seeds) < 2**63


def test_the_global_generators_are_left_alone(global_random_state):
    """Row 16 of the faults table: neither a stream nor a drawn seed moves them."""
    rng_for(1, "batches").permutation(10)
    drawn_seed()


def test_drawn_seeds_differ_and_can_be_given_again():
    """Row 16 of the faults table: SEED accepts a drawn seed, and drawn seeds are not always the same."""
    seeds = {drawn_seed() for _ in range(20)}
    assert len(seeds) > 15
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_deterministic_algorithms_are_switched_on_and_off_again(monkeypatch):
    """`--deterministic`: torch refuses what has no deterministic algorithm, and cuBLAS gets the workspace that it needs."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        use_deterministic_algorithms(True)
        assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        use_deterministic_algorithms(False)
    assert not torch.are_deterministic_algorithms_enabled()


def test_every_bit_of_a_seed_counts():
    """Drawn seeds have 31 bits, given ones 32."""
    assert len({seed_for(seed, "select", 0) for seed in (0, *(2**bit for bit in range(32)))}) == 33
