"""How much predictions still change, and what that advises."""

from types import SimpleNamespace

import pytest
import torch

from active.analysis.tables import _reason
from active.build import carry_out
from active.record.folder import prompts_path
from active.stopping import advice, expected_gain, kappa, reference
from tests.active.toy import N_CLASSES, ToyTrainer, cut_back, record_of, toy_config, toy_task


def test_kappa_by_hand():
    """Observed agreement 0.7, 0.5 by chance."""
    one = torch.tensor([0] * 5 + [1] * 5)
    two = torch.tensor([0] * 4 + [1] + [0] * 2 + [1] * 3)
    assert kappa(one, two, 2) == pytest.approx((0.7 - 0.5) / 0.5)


def test_kappa_of_equal_and_of_permuted_labelings():
    """It is 1 for equal labelings, even of one class only. The names of the classes do not matter."""
    rng = torch.Generator().manual_seed(0)
    one, two = (torch.randint(4, (200,), generator=rng) for _ in range(2))
    order = torch.randperm(4, generator=rng)
    assert kappa(one, one, 4) == 1 == kappa(torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.int64), 1)
    assert kappa(order[one], order[two], 4) == pytest.approx(kappa(one, two, 4))
    assert abs(kappa(one, two, 4)) < 0.1


def test_the_reference_is_the_newest_with_enough_labels_less():
    """Rounds may be of any size."""
    assert reference({0: 5, 1: 10, 2: 11, 3: 30}, 20, 10) == 1
    assert reference({0: 5, 1: 10}, 12, 10) is None and reference({}, 12, 10) is None
    assert reference({0: 3, 1: 3, 2: 3}, 13, 10) == 2


@pytest.mark.parametrize(("found", "words"), [
    (None, "too few labels yet"), (0.99, "you may stop"), (0.92, "go on if that is worth it"), (0.5, "go on: ")])
def test_the_advice_is_one_line(found, words):
    assert words in advice(found, 12) and "\n" not in advice(found, 12)
    if found is not None:
        assert f"the next 12 labels are expected to bring {expected_gain(found)[0]:.1f} ±" in advice(found, 12)


@pytest.mark.parametrize(("found", "gain", "words"), [
    (0.98, (0.3, 0.35), "you may stop"), (0.95, (1.1, 0.4), "go on if"), (0.9, (1.5, 0.6), "go on if"),
    (0.85, (2.6, 1.1), "go on: "), (0.8, (3.5, 1.4), "go on: "), (-1.0, (4.5, 1.5), "go on: ")])
def test_a_step_of_the_table_begins_at_its_kappa(found, gain, words):
    """Below it is the next step's. The numbers were measured, see `active.stopping`."""
    assert expected_gain(found) == gain and advice(found, 12).startswith(words)
    assert found == -1 or expected_gain(found - 1e-9) > gain


def test_gains_fall_as_predictions_agree():
    gains = [expected_gain(own)[0] for own in (-0.2, 0.0, 0.82, 0.87, 0.92, 0.96, 0.99, 1.0)]
    assert gains == sorted(gains, reverse=True)


def finished(output, **values):
    dataset, features, texts = toy_task()
    return carry_out(toy_config(output, **values), dataset, ToyTrainer(features, texts))


def test_kappa_of_a_run_is_that_of_its_models(tmp_path):
    """Each model is compared with the newest one with C fewer labels, on unlabeled images, also in a continued run."""
    values = {"ACTIVE__AUDIT": 4, "ACTIVE__QUERY_SIZE": 3, "ACTIVE__ROUNDS": 6}
    whole = finished(tmp_path, **values)
    dataset, features, texts = toy_task()
    trainer = ToyTrainer(features, texts)
    labeled: list[str] = []
    for record in whole.rounds:
        labeled += record.queried
        earlier = [own.round for own in whole.rounds if own.n_labeled <= record.n_labeled - N_CLASSES]
        if not earlier:
            assert record.kappa is None
            continue
        free = torch.tensor([datum.path not in labeled for datum in dataset.train])
        guesses = [trainer.predict(trainer.load(prompts_path(tmp_path, round)), "train").logits.argmax(1)
                   for round in (earlier[-1], record.round)]
        assert record.kappa == pytest.approx(kappa(guesses[0][free], guesses[1][free], N_CLASSES))
    assert whole.rounds[-1].kappa is not None
    cut_back(tmp_path / "results.json", 4)
    assert record_of(finished(tmp_path, **values)) == record_of(whole)


def test_only_its_own_criterion_ends_a_run(tmp_path):
    """It is recorded. A run without it takes all rounds, and the same ones up to that point."""
    values = {"ACTIVE__ROUNDS": 8, "ACTIVE__QUERY_SIZE": 6}
    whole = finished(tmp_path / "whole", **values, ACTIVE__AUDIT=4)
    found = next(record for record in whole.rounds if record.kappa is not None)
    stopped = finished(tmp_path / "stopped", **values, ACTIVE__AUDIT=4, ACTIVE__STOP=max(found.kappa - 1e-6, 1e-6))
    assert len(whole.rounds) == 8 and not whole.stopped
    assert stopped.finished and stopped.stopped.startswith("kappa") and f"after round {found.round}" in stopped.stopped
    assert record_of(stopped) == record_of(whole)[: found.round + 1]
    said = _reason(SimpleNamespace(status="done", n_done=found.round + 1, most=8, error=stopped.stopped, n_measured=1))
    assert said == f"ended after {found.round + 1} rounds, others after 8: {stopped.stopped}"
    again = finished(tmp_path / "stopped", **values, ACTIVE__AUDIT=4, ACTIVE__STOP=max(found.kappa - 1e-6, 1e-6))
    assert record_of(again) == record_of(stopped)
