"""The record of a run on disk."""

import json
from functools import reduce
from operator import getitem

import pytest

from active.record.results import READ_OF_CONFIG, READ_OF_DATASET, RoundRecord, RunResult, query_hash
from dassl.utils.errors import DataError
from tests.active.toy import edit


def record(round: int = 0, queried: tuple[str, ...] = ("a/1.jpg", "b/2.jpg")) -> RoundRecord:
    return RoundRecord(
        round=round, sampler="entropy", queried=list(queried), n_labeled=2, n_paid=2, n_pseudo=0,
        metrics={"accuracy": 0.5, "macro_f1": 0.4, "ece": 0.1}, class_counts=[1, 1], query_hash=query_hash(queried),
        seconds={"select": 0.1, "fit": 0.2, "evaluate": 0.3}, peak_memory_mb=100.0)


def result(*rounds: RoundRecord) -> RunResult:
    config = {"SEED": 1, "DATASET": {"NAME": "Toy"}, "TRAINER": {"NAME": "CoOp"}, "MODEL": {"BACKBONE": {"NAME": "tiny"}},
              "ACTIVE": {"SAMPLER": "entropy", "ROUNDS": 2, "QUERY_SIZE": 2}}
    dataset = {"name": "Toy", "n_train": 9, "n_test": 0, "n_classes": 2, "classnames": ["a", "b"]}
    return RunResult(config, {"commit": "unknown"}, dataset, {"accuracy": 0.3}, list(rounds))


def test_a_record_survives_the_round_trip(tmp_path):
    """What is written is read back as it was, with names of any kind."""
    path = tmp_path / "results.json"
    written = result(record(), record(1, ("ä ö/\u2603.jpg", 'quote".jpg', "line\nbreak.jpg", "raw\udcff.jpg")))
    written.write(path)
    assert RunResult.read(path) == written
    assert path.read_bytes().isascii()


def test_schema_and_status_stand_first(tmp_path):
    """The reader sees at once what kind of file it is."""
    result(record()).write(tmp_path / "results.json")
    assert list(json.loads((tmp_path / "results.json").read_text()))[:2] == ["schema", "status"]


def test_a_metric_that_is_not_a_number_is_not_written(tmp_path):
    """JSON has no NaN; the old file stays."""
    path = tmp_path / "results.json"
    result(record()).write(path)
    before = path.read_bytes()
    broken = result(record())
    broken.zero_shot["accuracy"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        broken.write(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("old", "new"), [('"accuracy": 0.5', '"accuracy": 0.6'), ('"accuracy": 0.3', '"accuracy": 0.4'),
                                          ('"running"', '"finished"'), ('"n_paid": 2', '"n_paid": 1')])
def test_a_changed_number_is_found(tmp_path, old, new):
    """Row 32 of the faults table: the checksum covers metrics, counts and status, which no other hash does."""
    path = tmp_path / "results.json"
    result(record()).write(path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=r"results\.json: the content does not match its checksum; the file was changed"):
        RunResult.read(path)


def test_a_record_without_its_checksum_is_refused(tmp_path):
    """Row 32: otherwise anyone could edit a number by also removing the checksum."""
    path = tmp_path / "results.json"
    result(record()).write(path)
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="does not match its checksum"):
        RunResult.read(path)


@pytest.mark.parametrize("value", [None, 5, "x", [], {}, [[]], {"a": []}])
def test_values_of_other_types_are_refused_in_every_place(tmp_path, value):
    """Row 19 of the faults table: a value of another type in place of a list, text or mapping is an error with the path."""
    path = tmp_path / "results.json"
    for place in ("rounds", "config", "certificate", "queried", "pseudo_labeled", "answers", "query_hash"):
        result(record()).write(path)
        edit(path, lambda content, place=place: (content if place in content else content["rounds"][0]).update({place: value}))
        try:
            RunResult.read(path)  # an empty mapping may be right here
        except DataError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("value", [None, "x", [], {}, [1], -1.5, True])
def test_every_part_that_is_read_is_of_its_type(tmp_path, value):
    """Row 19: even a record with a valid checksum must not cause a traceback in tables or figures."""
    path = tmp_path / "results.json"
    result(record()).write(path)
    whole = json.loads(path.read_text())
    places = [*((("config", *key.split(".")), kind) for key, kind in READ_OF_CONFIG.items()),
              *((("dataset", key), kind) for key, kind in READ_OF_DATASET.items()),
              (("rounds", 0, "accuracy"), float | None), (("rounds", 0, "class_counts"), list[int]),
              (("rounds", 0, "seconds"), dict[str, float]), (("zero_shot", "accuracy"), float | None), (("failure",), str)]
    for place, kind in places:
        result(record()).write(path)
        edit(path, lambda content, place=place: reduce(getitem, place[:-1], content).update({place[-1]: value}))
        try:
            kept = RunResult.read(path)
        except DataError as error:
            assert str(path) in str(error)
        else:  # of the same type, by chance
            found = reduce(getitem, place, json.loads(path.read_text()))
            assert type(found) is type(value) and kept and str(kind) not in ("int", "<class 'int'>"), place
    assert whole["rounds"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"schema": 2, "rounds": []}', '{"schema": 1}',
                                  "[" * 100_000,
                                  '{"schema": 1, "rounds": [{"round": 0}]}', '{"schema": 1, "rounds": [], "color": "red"}'])
def test_what_is_not_a_record_is_refused(tmp_path, text):
    """The error names the file."""
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"results\.json"):
        RunResult.read(path)


def test_changed_picks_are_found(tmp_path):
    """A pick that was edited by hand no longer matches its round's hash."""
    path = tmp_path / "results.json"
    result(record(), record(1)).write(path)
    path.write_text(path.read_text()[::-1].replace("gpj.1/a", "gpj.9/a", 1)[::-1])
    with pytest.raises(DataError, match="picks of round 1 do not match their hash"):
        RunResult.read(path)


def test_the_hash_of_a_query_is_fixed_and_follows_its_order():
    """The certificate of a round's picks must mean the same in every version."""
    assert query_hash(["a/1.jpg", "b/2.jpg"]) == "60ad6ce9bf891709fa214a17012fd2c9f9f84a59a67c7e241fe0ff64db34fc88"
    assert query_hash(["a/1.jpg", "b/2.jpg"]) != query_hash(["b/2.jpg", "a/1.jpg"])
    assert query_hash(["a", "b"]) != query_hash(["ab"]) != query_hash(["a, b"])


def test_the_hash_covers_pseudo_labels():
    """Another guess, or the same image asked instead of guessed, is another round."""
    assert query_hash(["a"], {}) == query_hash(["a"])
    assert len({query_hash(["a"], {"b": 1}), query_hash(["a"], {"b": 2}), query_hash(["a", "b"]), query_hash(["a"])}) == 4


def test_a_record_without_the_later_fields_is_read(tmp_path):
    """Records written before budgets were kept apart have no saved labels."""
    result(record()).write(tmp_path / "results.json")
    edit(tmp_path / "results.json", lambda content: [content["rounds"][0].pop(key) for key in (
        "n_saved", "pseudo_precision", "pseudo_labeled")])
    assert RunResult.read(tmp_path / "results.json") == result(record())


@pytest.mark.parametrize("metrics", [
    {}, {"ece": 0.1}, {"accuracy": 0.5, "nll": 1.0}, {"accuracy": float("inf"), "macro_f1": 0.4, "ece": 0.1}])
def test_metrics_of_a_record_are_looked_at(tmp_path, metrics):
    """Each round needs accuracy, all need the same metrics, and numbers must be finite, even if the checksum fits."""
    result(record(0), record(1)).write(tmp_path / "results.json")

    def change(content: dict) -> None:
        content["rounds"][1]["metrics"] = metrics

    edit(tmp_path / "results.json", change)
    with pytest.raises(DataError, match="not a whole record"):
        RunResult.read(tmp_path / "results.json")
