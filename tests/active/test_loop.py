"""The loop: query sizes, bookkeeping, resuming, what may and may not influence a run."""

import dataclasses
import json
import logging
import time
from types import SimpleNamespace

import pytest
import torch

from active import asking, loop
from active.build import build_run
from active.build import carry_out as run
from active.context import Query
from active.record.folder import open_result, prompts_path
from active.record.results import RunResult, query_hash
from active.registry import SAMPLERS
from dassl.config.setup import as_dict
from dassl.data.answers import NONE, SKIP
from dassl.data.dataset import UNLABELED
from dassl.utils.errors import ConfigError, TrainingError, UserError
from dassl.utils.large import unit_rows
from dassl.utils.registry import Component
from dassl.utils.seeding import rng_for
from tests.active.toy import N_CLASSES, N_TRAIN, ToyTrainer, edit, record_of, toy_config, toy_task

RUN_KEYS = ["schema", "status", "config", "environment", "dataset", "zero_shot", "rounds", "certificate", "known", "stopped",
            "failure", "checksum"]
ROUND_KEYS = {"approximation", "round", "sampler", "queried", "n_labeled", "n_paid", "n_pseudo", "metrics",
              "class_counts", "query_hash", "seconds", "peak_memory_mb", "n_saved", "pseudo_precision", "pseudo_labeled",
              "answers", "corrections", "n_asked", "n_skipped", "n_none", "n_unsure", "audited", "audit", "kappa", "n_known",
              "n_further", "files", "refills", "per_class"}
TRUTH = toy_task()[0].labels("train")


def toy_run(output, *, stop=None, **values):
    """Return the result of a run on the toy task and the trainer that it used."""
    dataset, features, texts = toy_task()
    trainer = ToyTrainer(features, texts, stop)
    return run(toy_config(output, **values), dataset, trainer), trainer


def test_counts_are_cumulative_and_every_pick_is_new(tmp_path):
    """After round r there are (r + 1) times the query size labels, all paid, each image once, counted by class."""
    result, _ = toy_run(tmp_path, ACTIVE__SAMPLER="entropy")
    labels = {datum.path: datum.label for datum in toy_task()[0].train}
    queried = []
    for record in result.rounds:
        queried += record.queried
        assert record.n_labeled == record.n_paid == len(queried) == 6 * (record.round + 1)
        assert record.n_pseudo == record.n_saved == 0 and record.pseudo_precision is None
        assert record.class_counts == [sum(labels[path] == label for path in queried) for label in range(N_CLASSES)]
        assert record.query_hash == query_hash(record.queried)
    assert len(set(queried)) == len(queried)


def test_every_round_is_fitted_on_all_labels_so_far_and_on_the_right_ones(tmp_path):
    """The trainer gets the rows that were asked, ascending, with their true labels."""
    result, trainer = toy_run(tmp_path)
    dataset = toy_task()[0]
    for (rows, labels, round), record in zip(trainer.fitted, result.rounds, strict=True):
        asked = {path for earlier in result.rounds[: record.round + 1] for path in earlier.queried}
        assert round == record.round
        assert rows.tolist() == sorted(rows.tolist())
        assert {dataset.train[row].path for row in rows.tolist()} == asked
        assert labels.tolist() == [dataset.train[row].label for row in rows.tolist()]


def test_the_record_has_the_documented_shape(tmp_path):
    """`results.json` holds the keys of schema 2 and no others; accuracies are fractions."""
    toy_run(tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert list(content) == RUN_KEYS
    assert content["schema"] == 2 and content["status"] == "finished"
    assert content["dataset"] == {"name": "Toy", "n_train": N_TRAIN, "n_test": 40, "n_classes": N_CLASSES,
                                  "classnames": [f"class {label}" for label in range(N_CLASSES)]}
    assert list(content["zero_shot"]) == ["accuracy"]
    assert {"commit", "torch", "open_clip"} <= content["environment"].keys()
    assert content["config"]["ACTIVE"]["ROUNDS"] == len(content["rounds"]) == 4
    for record in content["rounds"]:
        assert record.keys() == ROUND_KEYS
        assert list(record["metrics"]) == ["accuracy", "macro_f1", "ece"]
        assert all(0 <= value <= 1 for value in record["metrics"].values())
        assert list(record["seconds"]) == ["select", "fit", "evaluate"]


def test_a_round_that_goes_out_of_the_numbers_is_marked_failed(tmp_path, monkeypatch):
    """Row 17: the record names the round and the reason and keeps the rounds before; a next call tries the round again."""
    whole, _ = toy_run(tmp_path / "whole")
    with monkeypatch.context() as diverging, pytest.raises(TrainingError, match=r"^round 1: the loss is nan"):
        diverging.setattr(ToyTrainer, "fit", failing_in(1))
        toy_run(tmp_path / "run")
    result = RunResult.read(tmp_path / "run" / "results.json")
    assert (result.status, result.failure, len(result.rounds)) == ("failed", "round 1: the loss is nan", 1)
    again, _ = toy_run(tmp_path / "run")
    assert record_of(again) == record_of(whole) and (again.status, again.failure) == ("finished", "")


def test_features_that_are_not_finite_are_named_by_their_images(tmp_path, monkeypatch):
    """Row 17: with the names of the images, not their rows, and the record is marked failed, not left running."""
    predict = ToyTrainer.predict

    def damaged(self, model, split):
        found = predict(self, model, split)
        if split == "train":
            found.features[[4, 7], 0] = torch.nan
        return found

    monkeypatch.setattr(ToyTrainer, "predict", damaged)
    with pytest.raises(TrainingError, match=r"^round 0: the features of 2 train images hold NaN or Inf: train/004.png, "):
        toy_run(tmp_path / "run")
    result = RunResult.read(tmp_path / "run" / "results.json")
    assert result.status == "failed" and "train/004.png" in result.failure


def test_a_model_whose_guesses_of_the_pool_are_no_numbers_is_no_finished_round(tmp_path, monkeypatch):
    """Row 17: also where no test image tells, as in a folder of photos."""
    predict = ToyTrainer.predict

    def broken_after_training(self, model, split):
        found = predict(self, model, split)
        if self.fitted:
            found.logits[3] = torch.nan
        return found

    monkeypatch.setattr(ToyTrainer, "predict", broken_after_training)
    dataset, features, texts = toy_task()
    with pytest.raises(TrainingError, match=r"^round 0: the logits of 1 of \d+ rows hold NaN or Inf"):
        run(toy_config(tmp_path / "run", ACTIVE__STOP=0.99), dataclasses.replace(dataset, test=()), ToyTrainer(features, texts))
    result = RunResult.read(tmp_path / "run" / "results.json")
    assert (result.status, result.rounds) == ("failed", [])


def failing_in(failing: int):
    """Return a `fit` of the toy learner that diverges in one round."""
    fit = ToyTrainer.fit

    def failing_fit(self, rows, labels, round):
        if round == failing:
            raise TrainingError("the loss is nan")
        return fit(self, rows, labels, round)

    return failing_fit


def test_the_record_is_written_after_every_round(tmp_path):
    """A run that is stopped while it fits round 2 leaves two whole rounds, marked as running."""
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, stop=("fit", 2))
    result = RunResult.read(tmp_path / "results.json")
    assert (result.status, len(result.rounds)) == ("running", 2)


@pytest.mark.parametrize("sampler", ["entropy", "coreset", "random"])
@pytest.mark.parametrize("stop", [("predict", 0), ("fit", 0), ("fit", 1), ("fit", 3), ("save", 0), ("save", 2), ("predict", 5)])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, sampler, stop):
    """Stopped in any step of any round and started again, a run has the same picks and the same metrics."""
    whole, _ = toy_run(tmp_path / "whole", ACTIVE__SAMPLER=sampler)
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path / "stopped", ACTIVE__SAMPLER=sampler, stop=stop)
    record = tmp_path / "stopped" / "results.json"
    n_done = len(RunResult.read(record).rounds) if record.exists() else 0
    resumed, trainer = toy_run(tmp_path / "stopped", ACTIVE__SAMPLER=sampler)
    assert record_of(resumed) == record_of(whole)
    assert resumed.zero_shot == whole.zero_shot
    assert trainer.n_calls["fit"] == 4 - n_done


def test_a_run_that_has_no_round_yet_has_a_record(tmp_path):
    """Row 13: stopped while it fits its first round, a run of another config is refused already."""
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, stop=("fit", 0))
    result = RunResult.read(tmp_path / "results.json")
    assert (result.status, result.rounds) == ("running", []) and result.zero_shot["accuracy"] is not None
    with pytest.raises(UserError, match=r"SEED: 1 -> 2$"):
        toy_run(tmp_path, SEED=2)


def test_a_run_resumes_into_more_rounds_only_under_the_same_config(tmp_path):
    """A changed config is refused with one line for each key: old -> new; the record stays as it was."""
    toy_run(tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(UserError, match=r"aside:\n  OPTIM\.LR: 0\.002 -> 0\.5\n  SEED: 1 -> 2$"):
        toy_run(tmp_path, ACTIVE__ROUNDS=5, OPTIM__LR=0.5, SEED=2)
    assert (tmp_path / "results.json").read_bytes() == before


def test_keys_that_do_not_change_the_result_may_change(tmp_path):
    """A stopped run goes on with another number of workers and another root."""
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, stop=("fit", 1))
    result, _ = toy_run(tmp_path, DATALOADER__NUM_WORKERS=0, DATASET__ROOT="elsewhere", CACHE_DIR="cache")
    assert result.finished


def test_another_data_set_in_the_same_folder_is_refused(tmp_path):
    """The same config over other images is another run."""
    toy_run(tmp_path)
    dataset, features, texts = toy_task()
    other = dataclasses.replace(dataset, classnames=("a", "b", "c", "d", "e"))
    with pytest.raises(UserError, match="another data set"):
        run(toy_config(tmp_path), other, ToyTrainer(features, texts))


def test_a_record_that_names_an_unknown_image_is_refused(tmp_path):
    """Replaying picks that are not in the train split stops with the first of them."""
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, stop=("fit", 1))
    path = tmp_path / "results.json"

    def rename(content: dict) -> None:
        record = content["rounds"][0]
        record["queried"][0] = "train/gone.png"
        record["query_hash"] = query_hash(record["queried"])

    edit(path, rename)
    with pytest.raises(UserError, match=r"not in the train split, first 'train/gone\.png'"):
        toy_run(tmp_path)


def test_a_finished_run_is_left_as_it_is(tmp_path):
    """Running again asks nothing of the trainer and does not touch the record."""
    whole, _ = toy_run(tmp_path)
    written = (tmp_path / "results.json").stat().st_mtime_ns
    again, trainer = toy_run(tmp_path)
    assert not any(trainer.n_calls.values())
    assert record_of(again) == record_of(whole) and again.finished
    assert (tmp_path / "results.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("sampler", ["random", "entropy", "coreset"])
def test_poisoned_pool_labels_change_no_pick(tmp_path, sampler):
    """Labels of images that are never asked can be anything: picks and metrics stay the same."""
    dataset, features, texts = toy_task()
    clean = run(toy_config(tmp_path / "clean", ACTIVE__SAMPLER=sampler), dataset, ToyTrainer(features, texts))
    asked = {path for record in clean.rounds for path in record.queried}
    train = tuple(datum if datum.path in asked else dataclasses.replace(datum, label=(datum.label + 1) % N_CLASSES)
                  for datum in dataset.train)
    assert train != dataset.train
    poisoned = run(toy_config(tmp_path / "poisoned", ACTIVE__SAMPLER=sampler),
                   dataclasses.replace(dataset, train=train), ToyTrainer(features, texts))
    assert record_of(poisoned) == record_of(clean)


def test_a_pool_that_is_used_up_ends_the_run_and_says_so(tmp_path, caplog):
    """Row 4: sixty images at 25 a round: rounds of 25, 25 and 10, then the end, although six rounds are asked for."""
    with caplog.at_level(logging.WARNING):
        result, _ = toy_run(tmp_path, ACTIVE__QUERY_SIZE=25, ACTIVE__ROUNDS=6, ACTIVE__SAMPLER="entropy")
    assert [len(record.queried) for record in result.rounds] == [25, 25, 10]
    assert result.finished and result.rounds[-1].n_paid == N_TRAIN
    assert "the pool is used up after 3 rounds of the 6 asked for" in caplog.text


def test_a_query_larger_than_the_pool_asks_for_the_whole_pool(tmp_path):
    """Row 4: one round of everything, and the run ends."""
    result, _ = toy_run(tmp_path, ACTIVE__QUERY_SIZE=1000)
    assert [len(record.queried) for record in result.rounds] == [N_TRAIN]


def test_the_same_seed_gives_the_same_run_and_each_seed_another(tmp_path):
    """Seeds 0, 1 and 2 draw different first queries; 0 is a seed like any other."""
    runs = {seed: toy_run(tmp_path / str(seed), SEED=seed)[0] for seed in (0, 1, 2)}
    assert len({tuple(result.rounds[0].queried) for result in runs.values()}) == 3
    assert record_of(toy_run(tmp_path / "again", SEED=0)[0]) == record_of(runs[0])


def test_a_sampler_changes_no_stream_but_its_own(tmp_path):
    """A later sampler leaves the random first round as it is."""
    random = toy_run(tmp_path / "random")[0]
    coreset = toy_run(tmp_path / "coreset", ACTIVE__SAMPLER="coreset")[0]
    assert coreset.rounds[0].sampler == "random"
    assert coreset.rounds[0].queried == random.rounds[0].queried
    assert coreset.rounds[0].accuracy == random.rounds[0].accuracy
    assert coreset.rounds[1].queried != random.rounds[1].queried


@pytest.mark.parametrize(("sampler", "initial", "first"), [
    ("entropy", "auto", "entropy"), ("coreset", "auto", "random"), ("coreset", "coreset", "coreset"),
    ("entropy", "random", "random")])
def test_the_first_round_is_the_initial_samplers(tmp_path, sampler, initial, first):
    """`auto` is random for a sampler that needs labels. A name is used as it is."""
    result, _ = toy_run(tmp_path, ACTIVE__SAMPLER=sampler, ACTIVE__INITIAL_SAMPLER=initial)
    assert [record.sampler for record in result.rounds] == [first, sampler, sampler, sampler]


def test_the_first_query_comes_from_zero_shot_clip_and_the_second_from_the_first_model(tmp_path, monkeypatch):
    """The context holds the zero-shot logits in round 0 and the logits of the latest model afterwards."""
    seen = []

    def spy(ctx):
        seen.append(ctx)
        return torch.arange(ctx.n_query)

    add_sampler(monkeypatch, "spy", spy)
    _, trainer = toy_run(tmp_path, ACTIVE__SAMPLER="spy")
    zero_shot = trainer.predict(trainer.texts, "train").logits
    assert torch.equal(seen[0].logits, zero_shot) and not len(seen[0].labels)
    first = trainer.predict(trainer.fit(*trainer.fitted[0]), "train").logits
    assert torch.equal(seen[1].logits, first[6:])  # the spy asked rows 0 to 5
    assert torch.equal(seen[1].labeled_logits, first[:6])
    assert torch.equal(seen[1].zero_shot_logits, zero_shot[6:])
    assert seen[1].labels.tolist() == [datum.label for datum in toy_task()[0].train[:6]]
    assert (seen[1].round, seen[1].n_total, seen[1].n_query) == (1, N_TRAIN, 6)


@pytest.fixture
def saver(monkeypatch):
    """A sampler that asks its first four rows and labels two more itself, the first of them wrongly."""

    def build(ctx):
        guesses = TRUTH[ctx.ids[4:6]] + torch.tensor([1, 0])
        return Query(torch.arange(4), torch.tensor([4, 5]), guesses % N_CLASSES, torch.ones(2))

    add_sampler(monkeypatch, "saver", build)


def add_sampler(monkeypatch, name, build):
    monkeypatch.setitem(SAMPLERS._components, name, dataclasses.replace(SAMPLERS["entropy"], name=name, build=build))


def test_pseudo_labeled_rows_are_not_charged(tmp_path, saver):
    """Two of six rows are labeled by a guess, one of them rightly: four are paid, two saved, six labeled, cumulatively."""
    result, _ = toy_run(tmp_path, ACTIVE__SAMPLER="saver")
    assert [(record.n_paid, record.n_saved, record.n_pseudo, record.n_labeled) for record in result.rounds] == [
        (4, 2, 2, 6), (8, 4, 4, 12), (12, 6, 6, 18), (16, 8, 8, 24)]
    assert [record.pseudo_precision for record in result.rounds] == [0.5] * 4
    assert [len(record.queried) for record in result.rounds] == [4] * 4


def test_a_guess_is_trained_on_as_it_is_and_the_truth_stays(tmp_path, saver):
    """The wrong guess is fitted and counted; the data set's labels are untouched."""
    dataset, features, texts = toy_task()
    trainer = ToyTrainer(features, texts)
    result = run(toy_config(tmp_path, ACTIVE__SAMPLER="saver"), dataset, trainer)
    believed = [*TRUTH[:4].tolist(), (int(TRUTH[4]) + 1) % N_CLASSES, int(TRUTH[5])]
    assert trainer.fitted[0][1].tolist() == believed
    assert result.rounds[0].class_counts == [believed.count(label) for label in range(N_CLASSES)]
    assert result.rounds[0].pseudo_labeled == {"train/004.png": believed[4], "train/005.png": believed[5]}
    assert dataset.labels("train").tolist() == TRUTH.tolist()


@pytest.mark.parametrize("stop", [("fit", 0), ("fit", 1), ("save", 3)])
def test_pseudo_labeled_rows_survive_a_restart(tmp_path, saver, stop):
    """A resumed run has the same guesses, wrong ones included, and pays for none of them."""
    whole, _ = toy_run(tmp_path / "whole", ACTIVE__SAMPLER="saver")
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path / "stopped", ACTIVE__SAMPLER="saver", stop=stop)
    assert record_of(toy_run(tmp_path / "stopped", ACTIVE__SAMPLER="saver")[0]) == record_of(whole)


def test_a_changed_guess_is_found(tmp_path, saver):
    """The hash of a round covers its pseudo-labels."""
    toy_run(tmp_path, ACTIVE__SAMPLER="saver")
    path = tmp_path / "results.json"
    content = json.loads(path.read_text())
    content["rounds"][0]["pseudo_labeled"]["train/005.png"] ^= 1
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="picks of round 0 do not match their hash"):
        toy_run(tmp_path)


def test_cbsq_in_the_loop_saves_labels_and_accounts_for_them(tmp_path):
    """Some picks cost nothing: paid and saved add up to what was picked; the first round is paid in full."""
    result, _ = toy_run(tmp_path, ACTIVE__SAMPLER="cbsq", ACTIVE__ROUNDS=5)
    assert result.rounds[0].n_paid == 6 and result.rounds[-1].n_saved > 0
    for record in result.rounds:
        assert record.n_paid + record.n_saved == record.n_labeled == 6 * (record.round + 1)
        assert record.n_saved == sum(len(earlier.pseudo_labeled) for earlier in result.rounds[: record.round + 1])


def dual_run(output, *, stop=None, reported=None, **values):
    """Return the result of a run of `dual_prompt` on the toy task and the trainer that selects."""
    dataset, features, texts = toy_task()
    dual = ToyTrainer(features, texts, stop, negative_texts=texts.flip(0))
    keys = {"ACTIVE__SAMPLER": "dual_prompt", "ACTIVE__DUAL_PROMPT__K": 2, "ACTIVE__DUAL_PROMPT__K_INITIAL": 3,
            "ACTIVE__SELECTOR_TRAINER": "DualPrompt" if reported else ""} | values
    cfg = toy_config(output, **keys)
    return (run(cfg, dataset, dual) if reported is None else run(cfg, dataset, reported, dual)), dual


def test_dual_prompt_begins_with_a_model_of_zero_shot_pseudo_labels(tmp_path):
    """Before round 0 the learner is fitted to the 3 surest images of each class alone; these stay in the pool, unpaid."""
    result, dual = dual_run(tmp_path)
    rows, labels = dual.mined[0]
    assert [len(part) for part in dual.fitted[0][:2]] == [0, 0] and dual.fitted[0][2] == -1
    probs = dual.predict(dual.texts, "train").logits.softmax(1)
    for label in range(N_CLASSES):
        members = (probs.argmax(1) == label).nonzero().flatten()
        surest = members[probs[members, label].argsort(descending=True)[:3]]
        assert set(rows[labels == label].tolist()) == set(surest.tolist())
    assert result.rounds[0].n_paid == 6
    assert "warm_start" in result.rounds[0].seconds and "warm_start" not in result.rounds[1].seconds


def test_mined_images_are_trained_on_for_one_round_and_stay_in_the_pool(tmp_path):
    """Mined rows are not labeled ones, may be asked later, count as pseudo but not as saved."""
    result, dual = dual_run(tmp_path)
    mined = [set(rows.tolist()) for rows, _ in dual.mined]
    for record, (rows, _, _), guessed in zip(result.rounds, dual.fitted[1:], mined[1:], strict=True):
        assert not guessed & set(rows.tolist())
        assert (record.n_pseudo, record.n_saved, record.pseudo_labeled) == (len(guessed), 0, {})
        assert record.n_labeled == record.n_paid == 6 * (record.round + 1)
        assert 0 <= record.pseudo_precision <= 1
    assert any(guessed & set(rows.tolist()) for guessed in mined for rows, _, _ in dual.fitted[1:])


@pytest.mark.parametrize("stop", [("fit", 0), ("fit", 1), ("fit", 3), ("save", 1)])
def test_a_resumed_dual_prompt_run_equals_an_uninterrupted_one(tmp_path, stop):
    """Also where it is stopped while the first model is fitted."""
    whole, _ = dual_run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        dual_run(tmp_path / "stopped", stop=stop)
    assert record_of(dual_run(tmp_path / "stopped")[0]) == record_of(whole)


def test_dual_prompt_without_negative_prompts_is_refused_before_anything_is_done(tmp_path):
    """The error names the learner and both ways out. The trainer was not asked for anything."""
    dataset, features, texts = toy_task()
    for sampler, values in (("dual_prompt", {}), ("random", {"ACTIVE__INITIAL_SAMPLER": "dual_prompt"})):
        trainer = ToyTrainer(features, texts)
        with pytest.raises(ConfigError, match=r"'dual_prompt' .* CoOp has no negative ones; .* ACTIVE\.SELECTOR_TRAINER"):
            run(toy_config(tmp_path, ACTIVE__SAMPLER=sampler, **values), dataset, trainer)
        assert not any(trainer.n_calls.values()) and not any(tmp_path.iterdir())


def test_a_sampler_gets_bias_and_directions_of_the_model_that_selects(tmp_path, monkeypatch):
    """They are those of the prediction. If it has none, the sampler gets none."""
    dataset, features, texts = toy_task()
    seen, select = [], asking.select
    monkeypatch.setattr(asking, "select", lambda sampler, ctx: (seen.append(ctx), select(sampler, ctx))[1])
    trainer, predict = ToyTrainer(features, texts), ToyTrainer.predict

    def richer(model, split):
        found = predict(trainer, model, split)
        return found if model is texts else SimpleNamespace(**vars(found), bias=model[:, 0], class_directions=2 * model)

    trainer.predict = richer
    run(toy_config(tmp_path, ACTIVE__SAMPLER="margin", ACTIVE__ROUNDS=2), dataset, trainer)
    first, second = seen
    assert first.bias is None and first.class_directions is None and torch.equal(first.directions, texts)
    assert torch.equal(second.bias, second.text_features[:, 0])
    assert torch.equal(second.directions, 2 * second.text_features)


def test_features_kept_in_float16_reach_samplers_as_unit_rows(tmp_path, monkeypatch):
    """Of the pool, of labeled images, and of those that were known to be skipped or of no class."""
    dataset, features, texts = toy_task()
    seen, select = [], asking.select
    monkeypatch.setattr(asking, "select", lambda sampler, ctx: select(lambda own: seen.append(own) or sampler(own), ctx))
    known = {datum.path: [datum.label, SKIP, NONE][number % 3] for number, datum in enumerate(dataset.train[:9])}
    trainer = ToyTrainer({split: rows.half() for split, rows in features.items()}, texts.half())
    cfg = toy_config(tmp_path, ACTIVE__SAMPLER="margin", ACTIVE__ROUNDS=1)
    result = open_result(tmp_path, as_dict(cfg), dataset, {})
    loop.run(build_run(cfg, dataset, trainer, None, known), result)
    for kind, rows in (("", seen[0].ids), ("labeled_", seen[0].labeled_ids), ("skipped_", seen[0].skipped_ids),
                       ("flagged_", seen[0].flagged_ids)):
        found = getattr(seen[0], f"{kind}features")
        assert len(found) >= 3 and torch.equal(found, unit_rows(features["train"][rows].half()))
        assert not torch.equal(found, features["train"][rows].half().float())


def test_a_learner_that_is_not_linear_is_refused_before_anything_is_done(tmp_path):
    """The decision depends on what the selecting trainer says about itself."""
    dataset, features, texts = toy_task()
    trainer = ToyTrainer(features, texts)
    trainer.is_linear = False
    with pytest.raises(ConfigError, match="'alfa_mix' follows logits"):
        run(toy_config(tmp_path, ACTIVE__SAMPLER="alfa_mix"), dataset, trainer)
    assert not any(trainer.n_calls.values()) and not any(tmp_path.iterdir())


def test_one_learner_selects_and_another_is_reported(tmp_path):
    """The picks are the selector's; accuracy is that of the reported learner, fitted to the labeled images alone."""
    _, features, texts = toy_task()
    alone, _ = dual_run(tmp_path / "alone")
    reported = ToyTrainer(features, texts)
    both, dual = dual_run(tmp_path / "both", reported=reported)
    assert [record.queried for record in both.rounds] == [record.queried for record in alone.rounds]
    assert reported.mined == [None] * 4 and all(mined is not None for mined in dual.mined)
    for record, fitted in zip(both.rounds, list(reported.fitted), strict=True):
        predicted = reported.predict(reported.fit(*fitted), "test").logits.argmax(1)
        assert record.accuracy == pytest.approx((predicted == toy_task()[0].labels("test")).double().mean().item())
        assert {"fit", "fit_selector"} <= record.seconds.keys()
    assert [record.accuracy for record in both.rounds] != [record.accuracy for record in alone.rounds]


def test_half_labels_are_for_trainers_that_know_weights(tmp_path):
    """Otherwise the run would break off at the first such answer, after people have labeled."""
    dataset, features, texts = toy_task()
    with pytest.raises(ConfigError, match=r"ToyTrainer\.fit takes no weights of labels; .* ACTIVE\.UNSURE leave_out"):
        run(toy_config(tmp_path, ACTIVE__UNSURE="half"), dataset, ToyTrainer(features, texts))


def test_a_selector_is_never_left_out_in_silence(tmp_path):
    """A config that names a selector but a call without one is refused, and so is the reverse."""
    dataset, features, texts = toy_task()
    trainer = ToyTrainer(features, texts)
    with pytest.raises(ValueError, match="'DualPrompt', and a selector was not given"):
        run(toy_config(tmp_path, ACTIVE__SELECTOR_TRAINER="DualPrompt"), dataset, trainer)
    with pytest.raises(ValueError, match="'', and a selector was given"):
        run(toy_config(tmp_path), dataset, trainer, trainer)


@pytest.mark.parametrize("stop", [("fit", 0), ("fit", 2), ("save", 1)])
def test_a_resumed_run_with_a_selector_equals_an_uninterrupted_one(tmp_path, stop):
    """Both learners' prompts are kept, and each is continued from its own."""
    _, features, texts = toy_task()
    whole, _ = dual_run(tmp_path / "whole", reported=ToyTrainer(features, texts))
    with pytest.raises(KeyboardInterrupt):
        dual_run(tmp_path / "stopped", reported=ToyTrainer(features, texts, stop))
    resumed, _ = dual_run(tmp_path / "stopped", reported=ToyTrainer(features, texts))
    assert record_of(resumed) == record_of(whole)


def test_the_model_of_every_round_is_kept(tmp_path):
    """A prompts file a round, named after it."""
    toy_run(tmp_path)
    assert all(prompts_path(tmp_path, round).is_file() for round in range(4))


@pytest.fixture
def seen(monkeypatch):
    """The contexts that a sampler got, round by round; it takes the first rows."""
    contexts = []

    def look(ctx):
        contexts.append((ctx, ctx.rng.random()))
        return torch.arange(ctx.n_query)

    monkeypatch.setitem(SAMPLERS._components, "look", Component("look", look, (), {}))
    return contexts


class MovingTrainer(ToyTrainer):
    """Its image features follow the model, as those of learners that tune the image tower do."""

    def predict(self, model, split):
        now = super().predict(model, split)
        moved = torch.nn.functional.normalize(now.features + model.sum(0), dim=1)
        return dataclasses.replace(now, features=moved)


def test_samplers_see_the_features_of_the_model_of_the_round_before(tmp_path, seen):
    """Pool, labeled images, logits and texts are its own. Zero-shot CLIP's serve in round 0; its logits are always there."""
    dataset, features, texts = toy_task()
    trainer = MovingTrainer(features, texts)
    run(toy_config(tmp_path, ACTIVE__SAMPLER="look", ACTIVE__ROUNDS=3), dataset, trainer)
    zero_shot = trainer.predict(trainer.zero_shot(), "train")
    for round, (ctx, _) in enumerate(seen):
        model = trainer.load(prompts_path(tmp_path, round - 1)) if round else trainer.zero_shot()
        now = trainer.predict(model, "train")
        assert torch.equal(ctx.features, now.features[ctx.ids]) and torch.equal(ctx.logits, now.logits[ctx.ids])
        assert torch.equal(ctx.labeled_features, now.features[ctx.labeled_ids])
        assert torch.equal(ctx.labeled_logits, now.logits[ctx.labeled_ids])
        assert torch.equal(ctx.text_features, now.text_features)
        assert torch.equal(ctx.zero_shot_logits, zero_shot.logits[ctx.ids])
        assert not round or not torch.equal(now.features, zero_shot.features)


def test_every_round_and_seed_has_a_selection_stream_of_its_own(tmp_path, seen):
    """Three rounds of two seeds draw six different numbers. The same seed draws the same ones, as in older records."""
    dataset, features, texts = toy_task()
    for number, seed in enumerate((1, 2, 1)):
        run(toy_config(tmp_path / str(number), ACTIVE__SAMPLER="look", ACTIVE__ROUNDS=3, SEED=seed), dataset,
            ToyTrainer(features, texts))
    drawn = [number for _, number in seen]
    assert len(set(drawn[:6])) == 6 and drawn[6:] == drawn[:3]
    assert drawn == [rng_for(seed, "select look", round).random() for seed in (1, 2, 1) for round in range(3)]


def test_people_see_the_guesses_of_the_model_of_the_round_before(tmp_path, monkeypatch):
    """In round 0 they are those of zero-shot CLIP."""
    seen = []

    def ask(oracle, question, rows):
        seen.append((rows, question.guess(rows)))
        return dict(zip(rows.tolist(), TRUTH[rows].tolist(), strict=True))

    monkeypatch.setattr("active.oracles.files.FileOracle.ask", ask)
    dataset, features, texts = toy_task()
    dataset = dataclasses.replace(dataset, train=tuple(dataclasses.replace(item, label=UNLABELED) for item in dataset.train))
    trainer = ToyTrainer(features, texts)
    run(toy_config(tmp_path, ACTIVE__ORACLE="file", ACTIVE__ROUNDS=3), dataset, trainer)
    models = [trainer.zero_shot(), *(trainer.load(prompts_path(tmp_path, round)) for round in range(2))]
    for (rows, guesses), model in zip(seen, models, strict=True):
        assert torch.equal(guesses, trainer.predict(model, "train").logits[rows].softmax(1))


def test_seconds_are_those_of_the_steps(tmp_path):
    """Each at least 0, and all together no more than the run took."""
    start = time.perf_counter()
    result, _ = toy_run(tmp_path)
    seconds = [value for record in result.rounds for value in record.seconds.values()]
    assert min(seconds) >= 0 and sum(seconds) <= time.perf_counter() - start + 0.001 * len(seconds)  # each is rounded
