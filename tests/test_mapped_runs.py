"""Runs whose features and predictions are memory-mapped files, and runs on float16 features."""

import json

import pytest
import torch
from safetensors.torch import load_file

from active.record.certificate import config_hash
from dassl.utils import large
from scripts import predict
from tests.active.toy import edit
from tests.test_train import QUICK, call, run, without_times

SAMPLERS = ("badge", "cb", "coreset", "uherding", "cec", "typiclust", "gcnal")


@pytest.fixture
def made(monkeypatch):
    """The sizes of the files made for large tensors."""
    sizes, reserve = [], large.reserve
    monkeypatch.setattr(large, "reserve", lambda descriptor, size: (sizes.append(size), reserve(descriptor, size)))
    return sizes


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_run_on_mapped_files_has_the_record_of_one_in_memory(capsys, root, tmp_path, monkeypatch, made, sampler):
    """Picks, hashes and metrics, bit for bit; and nothing is left in its folder."""
    words = ("ACTIVE.SAMPLER", sampler, "ACTIVE.ROUNDS", "2")
    expected = run(capsys, root, tmp_path / "memory", *words)
    assert not made
    monkeypatch.setattr(large, "LARGE", 1)
    monkeypatch.setattr(large, "BLOCK", 1000)
    found = run(capsys, root, tmp_path / "mapped", *words)
    assert without_times(found) == without_times(expected) and found["certificate"] == expected["certificate"]
    assert len(made) > 4
    assert {path.name for path in (tmp_path / "mapped").iterdir()} == {path.name for path in (tmp_path / "memory").iterdir()}


@pytest.mark.parametrize("learner", ["CoOp", "LinearProbe", "CLIPAdapter", "ProLIP"])
def test_a_run_on_float16_features(capsys, root, tmp_path, monkeypatch, learner):
    """Its bank is next to the float32 one and half its size. Accuracies are close, and the mapped run gives the same again."""
    half = ("MODEL.FEATURES", "float16", "TRAINER.NAME", learner, "ACTIVE.SAMPLER", "margin", "CACHE_DIR", tmp_path / "cache",
            "ACTIVE.ROUNDS", "2")
    single = run(capsys, root, tmp_path / "single", *half, "MODEL.FEATURES", "float32")
    double = {path.name: load_file(path)["features"] for path in (tmp_path / "cache").glob("Digits_*.safetensors")}
    found = run(capsys, root, tmp_path / "half", *half)
    banks = [load_file(path)["features"] for path in (tmp_path / "cache").glob("Digits_*.safetensors")
             if path.name not in double]
    assert {bank.dtype for bank in banks} == {torch.float16} and len(banks) == len(double)
    assert all(any(torch.equal(bank, own.half()) for own in double.values()) for bank in banks)
    assert found["config"]["MODEL"]["FEATURES"] == "float16"
    assert abs(found["zero_shot"]["accuracy"] - single["zero_shot"]["accuracy"]) < 0.01
    monkeypatch.setattr(large, "LARGE", 1)
    assert without_times(run(capsys, root, tmp_path / "mapped", *half)) == without_times(found)


def test_a_model_of_float16_features_predicts_from_them(capsys, root, tmp_path):
    """It reads them from the cache, and the accuracy is that of the run."""
    half = ("MODEL.FEATURES", "float16", "ACTIVE.ROUNDS", "1")
    accuracy = run(capsys, root, tmp_path / "run", *half)["rounds"][0]["metrics"]["accuracy"]
    assert predict.main([str(tmp_path / "run"), "--split", "test", "--output", str(tmp_path / "table.csv")]) == 0
    table = (tmp_path / "table.csv").read_text().splitlines()[1:]
    hits = [line.split(",")[0].split("/")[-2] == line.split(",")[1] for line in table]
    assert len(hits) == 450 and sum(hits) / len(hits) == pytest.approx(accuracy)


def test_a_record_of_before_the_key_goes_on(capsys, root, tmp_path):
    """Its features are float32, and a run on other features does not continue it."""

    def without_key(record: dict) -> None:
        del record["config"]["MODEL"]["FEATURES"]
        record["certificate"]["config"] = config_hash(record["config"])

    run(capsys, root, tmp_path / "run", "ACTIVE.ROUNDS", "1")
    edit(tmp_path / "run" / "results.json", without_key)
    words = (*QUICK, "--root", root, "--output-dir", tmp_path / "run", "ACTIVE.ROUNDS", "2")
    code, _, errors = call(capsys, *words, "MODEL.FEATURES", "float16")
    assert code == 1 and "MODEL.FEATURES: 'float32' -> 'float16' (the record is older" in errors
    assert call(capsys, *words)[0] == 0
    assert len(json.loads((tmp_path / "run" / "results.json").read_text())["rounds"]) == 2
