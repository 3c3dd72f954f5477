"""Whole runs on a pretended card, whose results are those of the CPU."""

import dataclasses
from pathlib import Path
from unittest import mock

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel

import train
from active.record.results import MEASURED, RunResult
from dassl.utils.tensors import key_of
from tests.pretend_cuda import pretend_cuda


def rounds(folder: Path, *words: str) -> list[dict]:
    """Return what a short run records of its rounds; attention is computed as on the pretended card."""
    with sdpa_kernel(SDPBackend.MATH):
        assert train.main(["--config-file", "configs/quickstart.yaml", "--output-dir", str(folder / "run"), "VERBOSE", "false",
                           "OPTIM.MAX_EPOCH", "2", "ACTIVE.ROUNDS", "2", "CACHE_DIR", str(folder / "cache"), *words]) == 0
    found = RunResult.read(folder / "run" / "results.json").rounds
    return [{key: value for key, value in dataclasses.asdict(own).items() if key not in MEASURED} for own in found]


@pytest.mark.parametrize("learner", ["CoOp", "GDA"])
def test_a_run_is_the_same_on_a_card(root, tmp_path, learner):
    """Picks and accuracies agree. Cached features name the kind of card, and whether it may round to TF32."""
    tf32 = learner == "GDA"
    words = ["--root", str(root), "--trainer", learner, "MODEL.TF32", str(tf32).lower()]
    expected = rounds(tmp_path / "cpu", *words)
    with pretend_cuda(), mock.patch("torch.cuda.is_available", lambda: True):
        assert rounds(tmp_path / "card", *words) == expected
    assert RunResult.read(tmp_path / "card" / "run" / "results.json").environment["gpu"] == "pretended"
    keys = [key_of(path) for path in (tmp_path / "card" / "cache").rglob("*_train_*.safetensors")]
    assert [(key["device"], key["architecture"], key.get("tf32", False)) for key in keys] == [("cuda", "sm_90", tf32)]
