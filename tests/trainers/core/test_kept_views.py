"""A run on kept views is gone on with as if it had never been stopped, and repeats from scratch."""

import dataclasses

import active.verify
import train
from active.record.results import MEASURED, RunResult
from active.verify import main
from tests import commands


def test_a_run_on_kept_views_goes_on_and_repeats(root, tmp_path, capsys, monkeypatch):
    """Bit for bit, whatever the bank held before: nothing, the views of the first round, or all of them."""
    monkeypatch.setattr(active.verify.subprocess, "run", commands.run)
    words = ["--config-file", "configs/quickstart.yaml", "--root", str(root), "OPTIM.MAX_EPOCH", "2", "VERBOSE", "false",
             "INPUT.TRANSFORMS", "['random_resized_crop', 'random_flip', 'normalize']", "INPUT.VIEWS", "3"]

    def rounds(name: str, n_rounds: int) -> list[dict]:
        assert train.main([*words, "--output-dir", str(tmp_path / name), "CACHE_DIR", str(tmp_path / "cache"), "ACTIVE.ROUNDS",
                           str(n_rounds)]) == 0
        records = RunResult.read(tmp_path / name / "results.json").rounds
        return [{key: value for key, value in dataclasses.asdict(own).items() if key not in MEASURED} for own in records]

    rounds("stopped", 1)
    assert rounds("stopped", 2) == (whole := rounds("whole", 2))
    views = list((tmp_path / "cache").glob("*_views_*/*.safetensors"))
    assert len(views) == 2 and whole[1]["n_labeled"] > whole[0]["n_labeled"]  # one file of each round's new images
    assert main([str(tmp_path / "whole" / "results.json"), "--fresh"]) == 0 and "equal: 2 rounds" in capsys.readouterr().out
