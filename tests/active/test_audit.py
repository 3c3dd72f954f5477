"""What a few random labels say about a model, by simulation and in runs."""

import dataclasses

import numpy as np
import pytest
import torch

from active.audit import RESERVED, audited, effective_size, estimate, reserve, wilson
from active.build import carry_out
from active.oracles.oracle import Oracle
from active.record.folder import prompts_path
from active.record.report import table
from active.record.results import RunResult
from dassl.data.answers import NONE, SKIP, UNSURE
from dassl.utils.errors import ConfigError
from tests.active.toy import N_TRAIN, ToyTrainer, cut_back, record_of, toy_config, toy_task


def drawn(rng: np.random.Generator, n: int, accuracy: float, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences [10 n] and, for each, whether the guess is right: more often where confidence is large."""
    skill = rng.normal(size=RESERVED * n)
    chance = 1 / (1 + np.exp(-1.5 * skill - np.log(accuracy / (1 - accuracy))))
    return chance**sharpness, rng.random(len(chance)) < chance


def true_accuracy(accuracy: float) -> float:
    skill = np.random.default_rng(9).normal(size=10**6)
    return float((1 / (1 + np.exp(-1.5 * skill - np.log(accuracy / (1 - accuracy))))).mean())


@pytest.mark.parametrize("n", [20, 50, 100])
@pytest.mark.parametrize(("accuracy", "sharpness"), [(0.4, 1.0), (0.8, 1.0), (0.93, 1.0), (0.8, 0.2), (0.8, 5.0)])
def test_intervals_cover_the_truth(n, accuracy, sharpness):
    """At least 93.5 of 100 times, also where confidence is much too large or too small."""
    rng, truth, hits = np.random.default_rng(0), true_accuracy(accuracy), 0
    for _ in range(2000):
        confidence, right = drawn(rng, n, accuracy, sharpness)
        found = estimate(confidence, confidence[:n], right[:n])
        hits += found["low"] <= truth <= found["high"]
    assert hits / 2000 >= 0.935


def test_an_estimate_by_plain_python():
    """Between the guards, each end of the interval is exactly 1.96 deviations of that many labels away from the estimate."""
    confidence = [0.9, 0.4, 0.8, 0.3, 0.7, 0.9, 0.5, 0.6, *[0.55, 0.75, 0.95, 0.45] * 8]
    right = [True, False, True, False, True, True, False, True]
    n, errors = 8, [own - known for own, known in zip(right, confidence, strict=False)]
    value, off = sum(confidence) / 40 + sum(errors) / n, sum(errors) / n
    variance = (1 - n / 40) * sum((own - off)**2 for own in errors) / (n - 1) / n + value * (1 - value) / 40
    size = value * (1 - value) / variance
    assert n / 2 < size < 2 * n
    found = estimate(np.array(confidence), np.array(confidence[:n]), np.array(right))
    assert found["accuracy"] == pytest.approx(value) and found["low"] < value < found["high"]
    for end in (found["low"], found["high"]):
        assert (end - value)**2 == pytest.approx(1.959964**2 * end * (1 - end) / size, rel=1e-5)


def test_an_estimate_is_a_share():
    """A correction could take it above 1 or, with right and wrong swapped, below 0."""
    confidence, right = np.array([0.5, 0.6, 0.7, 0.9, *[0.99] * 36]), np.array([False, True, True, True])
    assert confidence.mean() + (right - confidence[:4]).mean() > 1
    found, turned = estimate(confidence, confidence[:4], right), estimate(1 - confidence, 1 - confidence[:4], ~right)
    assert (found["accuracy"], turned["accuracy"]) == (1, 0)
    assert found["low"] < found["high"] == pytest.approx(1) and turned["high"] > turned["low"] == pytest.approx(0)


@pytest.mark.parametrize(("variance", "n_right", "size"), [
    (0.25 / 12, 10, 12), (1e-9, 10, 40), (10.0, 10, 10), (0.0, 10, 20),
    (1e-9, 3, 40), (1e-9, 2, 20), (1e-9, 17, 40), (1e-9, 18, 20), (10.0, 2, 10)])
def test_the_size_of_a_sample_of_20_is_held_between_10_and_40(variance, n_right, size):
    """The size is also at most 20 while fewer than three are right, or fewer than three are wrong."""
    assert effective_size(0.5, variance, np.arange(20) < n_right) == pytest.approx(size)


@pytest.mark.parametrize(("value", "inside"), [(0.0, 0.025), (1.0, 0.975), (0.01, 0.025), (0.7, 0.7)])
def test_an_estimate_at_an_end_has_the_variance_of_half_an_image(value, inside):
    """With 20 images. Otherwise the interval would have no width."""
    variance = inside * (1 - inside) / 15
    assert effective_size(value, variance, np.arange(20) < 10) == pytest.approx(15)


def test_confidence_makes_the_interval_narrower():
    """If confidence correlates with being right; otherwise the interval is that of the labels alone."""
    rng = np.random.default_rng(0)
    confidence, right = drawn(rng, 100, 0.7)
    found = estimate(confidence, confidence[:100], right[:100])
    assert found["high"] - found["low"] < 0.95 * (found["wilson_high"] - found["wilson_low"])
    useless = rng.permutation(confidence)
    for own in (np.full(1000, 0.5), 1 - confidence, useless * 0 + right.repeat(1)[:1000].mean()):
        found = estimate(own, own[:100], right[:100])
        assert found["accuracy"] == right[:100].mean() and found["low"] == found["wilson_low"]


def test_an_estimate_that_knows_everything_is_exact():
    """If confidence is exactly whether the guess is right, the estimate is the mean over all reserved images."""
    right = np.random.default_rng(0).random(500) < 0.7
    found = estimate(right.astype(float), right[:50].astype(float), right[:50])
    assert found["accuracy"] == pytest.approx(right.mean())


@pytest.mark.parametrize("right", [np.ones(20, bool), np.zeros(20, bool), np.arange(20) > 1, np.arange(20) < 2])
def test_few_errors_do_not_make_it_sure(right):
    """With fewer than three wrong, or right, it is not narrower than Wilson's."""
    confidence = np.where(np.arange(200) % 20 < 3, 0.2, 0.99)
    found = estimate(confidence, confidence[:20], right)
    assert found["high"] - found["low"] >= found["wilson_high"] - found["wilson_low"] - 1e-3
    assert 0 <= found["low"] < found["high"] <= 1


def test_right_and_wrong_mirror():
    """Swapping right and wrong, with one minus the confidence, gives the mirror image."""
    confidence, right = drawn(np.random.default_rng(3), 40, 0.6)
    one = estimate(confidence, confidence[:40], right[:40])
    two = estimate(1 - confidence, 1 - confidence[:40], ~right[:40])
    assert (two["accuracy"], two["low"], two["high"]) == pytest.approx((1 - one["accuracy"], 1 - one["high"], 1 - one["low"]))


@pytest.mark.parametrize(("share", "n", "low", "high"), [
    (0.5, 10, 0.2366, 0.7634), (0.0, 20, 0.0, 0.1611), (0.9, 50, 0.7864, 0.9565)])
def test_wilson_by_hand(share, n, low, high):
    assert wilson(share, n) == pytest.approx((low, high), abs=1e-4)


def test_what_nobody_could_label_widens_the_interval():
    """Skipped and unsure images may be right or wrong. Images of none of the classes do not count. Unsure of a class counts."""
    confidence = np.linspace(0.3, 1, 400)
    guesses = [place % 3 for place in range(40)]
    answers = [(guess + (place % 4 == 0)) % 3 for place, guess in enumerate(guesses)]  # every fourth is wrong
    sure = audited(confidence, guesses, answers)
    assert (sure["n"], sure["n_none"], sure["n_unknown"]) == (40, 0, 0)
    said = [NONE if place == 39 else SKIP if place < 4 else UNSURE - 1 - code if place == 4 else code
            for place, code in enumerate(answers)]
    found = audited(confidence, guesses, said)
    assert (found["n"], found["n_none"], found["n_unknown"]) == (35, 1, 4)
    ends = [audited(confidence, guesses, [code if code != SKIP else (guess if right else guess + 1) for code, guess in zip(
        said, guesses, strict=True)]) for right in (False, True)]
    assert (found["low"], found["high"]) == (ends[0]["low"], ends[1]["high"])
    assert audited(confidence, [0, 1], [SKIP, UNSURE]) == {} == audited(confidence, [0, 1], [NONE, NONE])


def test_what_is_reserved_is_drawn_evenly_and_by_the_seed():
    """Ten images for each label, a fifth of the pool at most; more labels than that are refused."""
    first, again, other = (reserve(np.arange(1000), 10, 1, seed) for seed in (1, 1, 2))
    assert len(first.rows) == 100 == len(set(first.rows.tolist())) and first.rows.tolist() == again.rows.tolist()
    assert first.rows.tolist() != other.rows.tolist() and len(reserve(np.arange(100), 15, 1, 1).rows) == 20
    with pytest.raises(ConfigError, match=r"at most a fifth of 100 images .* give it 20 or less, or a share such as 10%"):
        reserve(np.arange(100), 21, 1, 1)
    counts = np.bincount(np.concatenate([reserve(np.arange(50), 2, 1, seed).rows for seed in range(4000)]), minlength=50)
    assert abs(counts - 800).max() < 5 * 26  # five standard deviations
    spread = reserve(np.arange(1000), 10, 3, 1)
    assert [len(spread.asked(round)) for round in range(5)] == [4, 3, 3, 0, 0]
    assert np.concatenate([spread.asked(round) for round in range(3)]).tolist() == spread.rows[:10].tolist()


def finished(output, **values) -> RunResult:
    dataset, features, texts = toy_task()
    return carry_out(toy_config(output, **values), dataset, ToyTrainer(features, texts))


@pytest.mark.parametrize("sampler", ["random", "entropy", "coreset", "cbsq", "cec", "typiclust"])
def test_reserved_images_are_never_asked_or_trained_on(tmp_path, sampler, monkeypatch):
    """This also holds in a continued run. Each round says what the audit does."""
    fitted = []
    monkeypatch.setattr(ToyTrainer, "fit", lambda self, rows, labels, round, _fit=ToyTrainer.fit, **mined: (
        fitted.append([rows, *(pair[0] for pair in mined.values())]), _fit(self, rows, labels, round, **mined))[1])
    result = finished(tmp_path / "whole", ACTIVE__SAMPLER=sampler, ACTIVE__AUDIT=8, ACTIVE__AUDIT_ROUNDS=2)
    reserved = set(reserve(np.arange(N_TRAIN), 8, 2, 1).rows.tolist())
    paths = [datum.path for datum in toy_task()[0].train]
    asked = {path for record in result.rounds for path in (*record.queried, *record.pseudo_labeled)}
    assert not asked & {paths[row] for row in reserved}
    assert not reserved & {row for rows in fitted for own in rows for row in own.tolist()}
    assert [len(record.audited) for record in result.rounds] == [4, 4, 0, 0]
    assert [record.audit["n"] for record in result.rounds] == [4, 8, 8, 8]
    assert [record.n_paid + record.n_saved for record in result.rounds] == [6, 12, 18, 24]
    finished(tmp_path / "cut", ACTIVE__SAMPLER=sampler, ACTIVE__AUDIT=8, ACTIVE__AUDIT_ROUNDS=2)
    cut_back(tmp_path / "cut" / "results.json", 2)
    again = finished(tmp_path / "cut", ACTIVE__SAMPLER=sampler, ACTIVE__AUDIT=8, ACTIVE__AUDIT_ROUNDS=2)
    assert record_of(again) == record_of(result)
    assert "95 % interval" in table(result)


def test_the_audit_is_that_of_the_reported_model(tmp_path):
    """Checked by hand: its guesses on the audited images, and its confidence on all reserved ones."""
    result = finished(tmp_path, ACTIVE__AUDIT=10)
    dataset, features, texts = toy_task()
    trainer, rows = ToyTrainer(features, texts), reserve(np.arange(N_TRAIN), 10, 1, 1).rows
    for record in result.rounds:
        logits = trainer.predict(trainer.load(prompts_path(tmp_path, record.round)), "train").logits[torch.from_numpy(rows)]
        right = (logits.argmax(1) == dataset.labels("train")[torch.from_numpy(rows)]).numpy()
        found = estimate(logits.softmax(1).amax(1).numpy(), logits.softmax(1).amax(1).numpy()[:10], right[:10])
        assert record.audit == found | {"n_none": 0, "n_unknown": 0}


def test_without_an_audit_nothing_changes(tmp_path):
    """The same picks and numbers as with the key at 0 or left out."""
    runs = [finished(tmp_path / str(number), **own) for number, own in enumerate(({}, {"ACTIVE__AUDIT": 0}))]
    assert record_of(runs[0]) == record_of(runs[1]) and not any(record.audit for record in runs[0].rounds)


def test_a_label_is_trained_on_or_audited():
    """No label is used for both."""
    oracle = Oracle(torch.tensor([0, 1, 0, 1]), budget=4)
    oracle.label(torch.tensor([0]))
    oracle.audit(torch.tensor([1]))
    for refused in (lambda: oracle.label(torch.tensor([1])), lambda: oracle.audit(torch.tensor([0]))):
        with pytest.raises(ValueError, match=r"asked twice|cannot be audited"):
            refused()
    assert oracle.n_paid == 1 and oracle.audited(torch.tensor([1, 2, 3])) == [1]


def test_a_record_of_another_audit_is_refused(tmp_path):
    """Somebody may have changed it by hand."""
    finished(tmp_path, ACTIVE__AUDIT=6)
    cut_back(tmp_path / "results.json", 2)
    result = RunResult.read(tmp_path / "results.json")
    result.rounds[0] = dataclasses.replace(result.rounds[0], audited=result.rounds[0].audited[::-1])
    result.write(tmp_path / "results.json")
    with pytest.raises(Exception, match="hash"):
        finished(tmp_path, ACTIVE__AUDIT=6)


def test_images_of_no_class_do_not_pull_the_estimate():
    """The model is unsure of them, and nobody knows which reserved images they are. So only the labels count."""
    rng, hits, values = np.random.default_rng(0), 0, []
    for _ in range(400):
        confidence, right = drawn(rng, 50, 0.8)
        is_none = rng.random(len(confidence)) < 0.3
        confidence = np.where(is_none, 0.3, confidence)
        answers = [NONE if none else int(own) for none, own in zip(is_none[:50], right[:50], strict=True)]
        found = audited(confidence, [1] * 50, answers)
        hits += found["low"] <= true_accuracy(0.8) <= found["high"]
        values.append(found["accuracy"])
    assert hits >= 372 and np.mean(values) == pytest.approx(true_accuracy(0.8), abs=0.01)


def test_the_accuracy_lies_within_its_interval():
    """Whatever the answers were."""
    rng = np.random.default_rng(0)
    for _ in range(3000):
        n = int(rng.integers(2, 12))
        confidence = rng.beta(*rng.uniform(0.3, 4, 2), size=10 * n)
        answers = rng.choice([0, 1, SKIP, NONE, UNSURE, UNSURE - 1], size=n, p=[0.3, 0.3, 0.2, 0.1, 0.05, 0.05]).tolist()
        if found := audited(confidence, rng.integers(2, size=n).tolist(), answers):
            assert 0 <= found["low"] <= found["accuracy"] <= found["high"] <= 1
