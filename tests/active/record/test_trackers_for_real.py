"""Trackers with their real packages and without a network. Tests are skipped if a package is not installed."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from active.record.results import numbers
from tests.active.record.test_trackers import RATES, tracked

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")


class Named:
    def __init__(self, name):
        self.name = name


def records(content: bytes) -> Iterator[bytes]:
    """Yield what a file of Weights & Biases holds: records in LevelDB's log format, parts of them in blocks of 32 KiB."""
    place, parts = 7, b""  # behind the file's own head
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, n_bytes, kind = struct.unpack("<IHB", content[place:place + 7])
        parts += content[place + 7:place + 7 + n_bytes]
        place += 7 + n_bytes
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def history(folder: Path) -> list[dict]:
    """Return the rows that `wandb sync` would send of the offline runs in a folder, in the order in which they were written."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in map(Record.FromString, records(file.read_bytes())):
            if record.WhichOneof("record_type") == "history":
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json)
                             for item in record.history.item})
    return rows


def test_wandb_offline(tmp_path, monkeypatch):
    """It holds each round's numbers, images and epochs. A continued run has the same name, so `wandb sync` merges the two."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    for n_rounds in (2, 4):
        result = tracked(tmp_path, Named("wandb"), LOG__WANDB__MODE="offline", ACTIVE__ROUNDS=n_rounds)
    folder = tmp_path / "run" / "recorders"
    name = json.loads((folder / "wandb.json").read_text())["run"]
    assert {file.stem for file in folder.glob("wandb/*/*.wandb")} == {f"run-{name}"}
    rows = history(folder)
    rounds = [row for row in rows if "accuracy" in row]
    for record, row in zip(result.rounds, rounds, strict=True):
        assert {key: row[key] for key in numbers(record)} == pytest.approx(numbers(record))
        assert row["learning_curve/_type"] == row["query/_type"] == "image-file"
    epochs = [row for row in rows if "loss/fit/round_003" in row]
    assert [(row["epoch"], row["loss/fit/round_003"], row["learning_rate/fit/round_003"]) for row in epochs] == [
        (0, 33.0, RATES[0]), (1, 32.0, RATES[1]), (2, 31.5, RATES[2])]


@pytest.mark.parametrize("store", ["sqlite:///{}/runs.db", "file://{}/runs"])
def test_mlflow_on_this_disk(tmp_path, monkeypatch, store):
    """A database and a folder hold numbers, epochs, images and config, also of a continued run."""
    pytest.importorskip("mlflow")
    if store.startswith("sqlite"):
        pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)  # where MLflow keeps the artifacts of a database
    from mlflow import MlflowClient

    uri = store.format(tmp_path)
    for n_rounds in (2, 4):
        result = tracked(tmp_path, Named("mlflow"), LOG__MLFLOW__URI=uri, ACTIVE__ROUNDS=n_rounds)
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("active-prompt-learning").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["ACTIVE.SAMPLER"] == "random"
    for name in numbers(result.rounds[0]):
        told = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        assert told == [(record.n_labeled, numbers(record)[name]) for record in result.rounds]
    losses = client.get_metric_history(run.info.run_id, "loss/fit/round_003")
    assert [(point.step, point.value) for point in losses] == [(0, 33.0), (1, 32.0), (2, 31.5)]
    files = {file.path for folder in ("", "query", "learning_curve") for file in client.list_artifacts(run.info.run_id, folder)}
    assert {"config.json", "certificate.json", "query/round_003.png", "learning_curve/round_000.png"} <= files
