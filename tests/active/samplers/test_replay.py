"""Replay: the queries of a record, again, with the toy learner of the loop's tests."""

import dataclasses
import json

import pytest

from active.build import carry_out as run
from active.record.results import RunResult, query_hash
from active.registry import check_sampler_names
from dassl.data.dataset import UNLABELED
from dassl.utils.errors import ConfigError, DataError
from tests.active.toy import N_CLASSES, ToyTrainer, edit, record_of, toy_config, toy_task


def toy_run(output, **values):
    dataset, features, texts = toy_task()
    return run(toy_config(output, **values), dataset, ToyTrainer(features, texts))


def replayed(output, results, **values):
    return toy_run(output, ACTIVE__SAMPLER="replay", ACTIVE__REPLAY__RESULTS=results, **values)


@pytest.mark.parametrize("sampler", ["entropy", "coreset", "cbsq"])
def test_a_replayed_run_has_the_picks_and_metrics_of_the_first(tmp_path, sampler):
    """Under the same learner all is equal but the sampler's name, pseudo-labels included."""
    first = record_of(toy_run(tmp_path / "first", ACTIVE__SAMPLER=sampler))
    again = record_of(replayed(tmp_path / "again", tmp_path / "first" / "results.json"))
    assert {record.pop("sampler") for record in again} == {"replay"}
    for record in first:
        record.pop("sampler")
    assert again == first


def test_another_learner_is_trained_on_the_same_images(tmp_path):
    """With other class texts the metrics move and the picks do not, which entropy's own would."""
    toy_run(tmp_path / "first", ACTIVE__SAMPLER="entropy")
    dataset, features, texts = toy_task()
    runs = []
    for sampler in ("replay", "entropy"):
        cfg = toy_config(tmp_path / sampler, ACTIVE__SAMPLER=sampler,
                         **({"ACTIVE__REPLAY__RESULTS": tmp_path / "first" / "results.json"} if sampler == "replay" else {}))
        runs.append(run(cfg, dataset, ToyTrainer(features, texts.roll(1, 0))))
    first = json.loads((tmp_path / "first" / "results.json").read_text())["rounds"]
    assert [record.query_hash for record in runs[0].rounds] == [record["query_hash"] for record in first]
    assert [record.query_hash for record in runs[1].rounds] != [record["query_hash"] for record in first]
    assert [record.accuracy for record in runs[0].rounds] != [record["metrics"]["accuracy"] for record in first]


def test_fewer_rounds_may_be_replayed_and_more_may_not(tmp_path):
    """ACTIVE.ROUNDS beyond the record is an error before anything is loaded."""
    toy_run(tmp_path / "first")
    results = tmp_path / "first" / "results.json"
    assert len(replayed(tmp_path / "again", results, ACTIVE__ROUNDS=2).rounds) == 2
    node = toy_config(tmp_path, ACTIVE__SAMPLER="replay", ACTIVE__REPLAY__RESULTS=results, ACTIVE__ROUNDS=5).ACTIVE
    with pytest.raises(ConfigError, match=r"holds 4 rounds; set ACTIVE\.ROUNDS, now 5, to no more"):
        check_sampler_names(node)


def test_the_first_round_alone_may_be_replayed(tmp_path):
    """One record gives several samplers the same start; a record of one round is enough."""
    first = toy_run(tmp_path / "first", ACTIVE__ROUNDS=1)
    results = tmp_path / "first" / "results.json"
    cfg = toy_config(tmp_path / "again", ACTIVE__SAMPLER="entropy", ACTIVE__INITIAL_SAMPLER="replay",
                     ACTIVE__REPLAY__RESULTS=results)
    check_sampler_names(cfg.ACTIVE)
    dataset, features, texts = toy_task()
    again = run(cfg, dataset, ToyTrainer(features, texts))
    assert [record.sampler for record in again.rounds] == ["replay", "entropy", "entropy", "entropy"]
    assert again.rounds[0].queried == first.rounds[0].queried


@pytest.mark.parametrize("results", ["", "absent.json"])
def test_a_record_that_is_not_there_is_named(tmp_path, results):
    """This also holds if the key was forgotten."""
    node = toy_config(tmp_path, ACTIVE__SAMPLER="replay", ACTIVE__REPLAY__RESULTS=results).ACTIVE
    with pytest.raises(ConfigError, match=f"ACTIVE.REPLAY.RESULTS is '{results}'"):
        check_sampler_names(node)


def test_another_query_size_is_refused(tmp_path):
    """The record decides how many images a round asks."""
    toy_run(tmp_path / "first")
    with pytest.raises(ConfigError, match=r"round 0 of .* picked 6 images, but this run picks 5"):
        replayed(tmp_path / "again", tmp_path / "first" / "results.json", ACTIVE__QUERY_SIZE=5)


def test_images_of_another_data_set_are_named(tmp_path):
    """A record whose images are not in the pool stops with the first of them."""
    toy_run(tmp_path / "first")
    path = tmp_path / "first" / "results.json"

    def rename(content: dict) -> None:
        record = content["rounds"][0]
        record["queried"][1] = "train/gone.png"
        record["query_hash"] = query_hash(record["queried"])

    edit(path, rename)
    with pytest.raises(DataError, match=r"not in this pool, first 'train/gone\.png'"):
        replayed(tmp_path / "again", path)


def test_a_record_of_other_classes_is_refused(tmp_path):
    """The labels that people gave are numbers of class names."""
    toy_run(tmp_path / "first")
    dataset, features, texts = toy_task()
    other = dataclasses.replace(dataset, classnames=("a", "b", "c", "d", "e"))
    cfg = toy_config(tmp_path / "again", ACTIVE__SAMPLER="replay",
                     ACTIVE__REPLAY__RESULTS=tmp_path / "first" / "results.json")
    with pytest.raises(DataError, match="a run with other classes"):
        run(cfg, other, ToyTrainer(features, texts))


def test_answers_of_a_record_stand_behind_the_data_set_s_own_labels(tmp_path):
    """They fill in only what the data set does not know. A label that was corrected there since stays."""
    toy_run(tmp_path / "first", ACTIVE__ROUNDS=1)
    dataset, features, texts = toy_task()
    rows = [dataset.train_rows[path] for path in RunResult.read(tmp_path / "first" / "results.json").rounds[0].queried]
    wrong = [(dataset.train[row].label + 1) % N_CLASSES for row in rows]

    def answered(content: dict) -> None:
        record = content["rounds"][0]
        record["answers"] = dict(zip(record["queried"], wrong, strict=True))
        record["query_hash"] = query_hash(record["queried"], {}, record["answers"])

    edit(tmp_path / "first" / "results.json", answered)
    unknown = dataclasses.replace(dataset.train[rows[0]], label=UNLABELED)
    dataset = dataclasses.replace(dataset, train=tuple(
        unknown if row == rows[0] else item for row, item in enumerate(dataset.train)))
    trainer = ToyTrainer(features, texts)
    run(toy_config(tmp_path / "again", ACTIVE__SAMPLER="replay", ACTIVE__ROUNDS=1,
                   ACTIVE__REPLAY__RESULTS=tmp_path / "first" / "results.json"), dataset, trainer)
    found = dict(zip(*(values.tolist() for values in trainer.fitted[0][:2]), strict=True))
    assert found == {row: dataset.train[row].label for row in rows} | {rows[0]: wrong[0]}
