"""Purity: what it drops, against a slow reference; without flags, its base sampler's picks; and flags in a run."""

import logging
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import active.asking
from active.build import carry_out
from active.context import Query, SelectionContext
from active.registry import build_chosen, check_learner, initial_sampler
from active.samplers.purity import asked_of, otsu, own_scores
from active.testing import make_context, picks, sampler_by_name, sampler_node, small_pools
from dassl.utils.errors import ConfigError
from tests.active.samplers import plain
from tests.active.toy import ToyTrainer, record_of, toy_config, toy_task
from tests.test_answers import asked, fill, photos, sheet, start, truth  # noqa: F401


def flagged_beside(ctx: SelectionContext, n: int, seed: int = 0) -> SelectionContext:
    """Return the context with n flags around a direction of their own, and a third of the pool's rows there too."""
    rng = np.random.default_rng([seed, 9])
    center = rng.normal(size=ctx.features.shape[1])
    strangers = [F.normalize(torch.from_numpy(center + 0.4 * rng.normal(size=(count, len(center)))).float(), dim=1)
                 for count in (n, ctx.n_pool // 3)]
    features = torch.cat([strangers[1], ctx.features[len(strangers[1]) :]])
    return replace(ctx, features=features, logits=20 * features @ ctx.text_features.T, flagged_features=strangers[0])


def by_hand(ctx: SelectionContext) -> list[int]:
    """Score rows one by one, fit the regression by Newton's steps, try every split, and select by a sort."""
    texts, labeled, flags, pool = (rows.double().tolist() for rows in (
        ctx.text_features, ctx.labeled_features, ctx.flagged_features, ctx.features))

    def near(row: list[float], others: list[list[float]]) -> float:
        return max((plain.dot(row, other) for other in others if other is not row), default=1.0)

    def numbers(row: list[float]) -> list[float]:
        return [max(plain.softmax([plain.dot(row, text) for text in texts])), near(row, labeled) - near(row, flags)]

    scores = [numbers(row)[0] for row in pool]
    if len(labeled) > 1:
        known = np.array([numbers(row) for row in [*labeled, *flags]])
        mean, scale = known.mean(0), np.where(known.std(0) > 0, known.std(0), 1)
        weights = newton((known - mean) / scale, np.array([1] * len(labeled) + [0] * len(flags)))
        scores = [float(np.array([*((np.array(numbers(row)) - mean) / scale), 1]) @ weights) for row in pool]
    threshold = tried(scores)
    kept = [row for row in range(len(pool)) if scores[row] >= threshold]
    return by_margin(ctx, scores, kept)


def by_margin(ctx: SelectionContext, scores: list[float], kept: list[int]) -> list[int]:
    """Margin by a sort among the rows that are kept; if they do not suffice, dropped rows follow by falling score."""
    if len(kept) <= ctx.n_query:
        dropped = sorted(set(range(ctx.n_pool)) - set(kept), key=lambda row: (-scores[row], row))
        return [*kept, *dropped][: ctx.n_query]
    margins = []
    for row in kept:
        first, second, *_ = sorted(plain.softmax(ctx.logits[row].double().tolist()), reverse=True)
        margins.append(second - first)
    return [kept[row] for row in plain.ranked(margins, ctx.n_query)]


def newton(rows: np.ndarray, is_own: np.ndarray) -> np.ndarray:
    """Logistic loss, summed, and 0.01 / 2 times the squared weights but the last, which is the constant."""
    rows, ridge, weights = np.c_[rows, np.ones(len(rows))], np.diag([0.01, 0.01, 0]), np.zeros(3)

    def loss(at: np.ndarray) -> float:
        return float(np.logaddexp(0, -(2 * is_own - 1) * (rows @ at)).sum() + at @ ridge @ at / 2)

    for _ in range(100):
        probability = 1 / (1 + np.exp(-rows @ weights))
        slope = rows.T @ (probability - is_own) + ridge @ weights
        step = np.linalg.solve((rows * (probability * (1 - probability))[:, None]).T @ rows + ridge, slope)
        length = next((0.5**k for k in range(40) if loss(weights - 0.5**k * step) <= loss(weights)), 0.0)
        weights = weights - length * step
    return weights


def tried(scores: list[float]) -> float:
    """Otsu by its definition: the split of most variance between its parts, the lowest one of several."""
    ordered, best = sorted(scores), (-1.0, min(scores))
    for place in range(1, len(ordered)):
        low, high = ordered[:place], ordered[place:]
        between = len(low) * len(high) * (sum(high) / len(high) - sum(low) / len(low)) ** 2
        if ordered[place] > ordered[place - 1] and between > best[0] * (1 + 1e-12):
            best = between, ordered[place]
    return best[1]


def test_purity_is_its_slow_form():
    """On 200 small pools with flags; margin asks among what is kept."""
    sampler, n_other = sampler_by_name("purity"), 0
    for number, ctx in enumerate(small_pools(200)):
        ctx = flagged_beside(replace(ctx, n_query=min(ctx.n_query, ctx.n_pool - 1)), 5 + number % 4, number)
        expected = by_hand(ctx)
        n_other += picks(sampler_by_name("margin"), ctx) != ctx.ids[expected].tolist()
        assert picks(sampler, ctx) == ctx.ids[expected].tolist()
    assert n_other > 100


def test_otsu_is_every_split():
    """Also where scores are equal; the upper part begins at the threshold."""
    rng = np.random.default_rng(1)
    for number in range(200):
        scores = np.r_[rng.normal(size=rng.integers(1, 20)), rng.normal(size=rng.integers(1, 20), loc=3)].round(number % 4)
        assert otsu(torch.from_numpy(scores)) == tried(scores.tolist())


def test_scores_that_are_equal_but_for_rounding_are_not_split():
    scores = torch.full((9,), 0.25) + 1e-8 * torch.arange(9)
    assert bool((scores >= otsu(scores)).all())


@pytest.mark.parametrize("n_flags", [0, 4])
def test_without_flags_it_is_its_base(n_flags):
    """The picks are the same, whatever the base draws. Fewer than five flags count as none."""
    for seed, base in enumerate(("margin", "random", "badge", "coreset", "typiclust", "cbsq")):
        ctx = make_context(seed)
        ctx = replace(ctx, flagged_features=ctx.labeled_features[:n_flags] if n_flags else None)
        assert picks(sampler_by_name("purity", base=base, unflagged="keep"), ctx) == picks(sampler_by_name(base), ctx)


@pytest.mark.parametrize("base", ["random", "badge", "coreset", "cbsq", "schedule"])
def test_a_run_without_flags_is_that_of_its_base(tmp_path, base):
    """The random stream, first round and saved labels are the same, bit for bit. Only the recorded name differs."""
    dataset, features, texts = toy_task()

    def record(name: str, **values: object) -> list[dict]:
        cfg = toy_config(tmp_path / name, ACTIVE__SAMPLER=name, **values)
        return [own | {"sampler": ""} for own in record_of(carry_out(cfg, dataset, ToyTrainer(features, texts)))]

    assert record("purity", ACTIVE__PURITY__BASE=base, ACTIVE__PURITY__UNFLAGGED="keep") == record(base)


def test_the_first_round_is_the_bases():
    node = sampler_node()
    for base, expected in [("coreset", "random"), ("margin", "purity"), ("schedule", "purity")]:
        node.SAMPLER, node.PURITY.BASE = "purity", base
        assert initial_sampler(node) == expected
    assert build_chosen("purity", node).at(0, 0, 5).stream == "typiclust"
    assert build_chosen("purity", node).at(3, 9, 5).stream == "margin"


def test_a_threshold_below_all_is_the_base():
    ctx = make_context(2)
    scores = own_scores(ctx, None)[0]
    for base in ("badge", "cec", "random"):
        alone = picks(sampler_by_name(base), ctx)
        assert picks(lambda ctx, base=base: asked_of(ctx, sampler_by_name(base), scores, scores[:0], -torch.inf), ctx) == alone


def test_flags_of_a_far_cluster_remove_it():
    """Half of the pool lies where the flags are: no base asks for any of it."""
    ctx = make_context(1, n_pool=60, n_query=10)
    noise = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    away = F.normalize(-ctx.text_features.mean(0) + 0.05 * noise, dim=1)
    features = torch.cat([away[:30], ctx.features[30:]])
    ctx = replace(ctx, features=features, logits=20 * features @ ctx.text_features.T, flagged_features=away[30:])
    for base in ("margin", "random", "coreset", "maxherding", "cbsq"):
        assert set(picks(sampler_by_name("purity", base=base), ctx)) <= set(ctx.ids[30:].tolist())
        assert set(picks(sampler_by_name(base), ctx)) & set(ctx.ids[:30].tolist())


def test_a_higher_threshold_never_adds_a_row():
    """What the base sees can only shrink."""
    ctx, seen = make_context(4), []
    scores = own_scores(ctx, None)[0]

    def base(own: SelectionContext) -> torch.Tensor:
        seen.append(set(own.ids.tolist()))
        return torch.arange(own.n_query)

    for threshold in scores.sort().values[::7]:
        asked_of(ctx, base, scores, scores[:0], float(threshold))
    assert len(seen) > 5 and all(later < earlier for earlier, later in pairwise(seen))


def test_where_too_few_are_kept_dropped_ones_are_asked_by_their_score(caplog):
    """Exactly the budget, and a warning that says how many."""
    ctx, scores = make_context(3, n_pool=9, n_query=6), torch.tensor([9.0, 1, 5, 8, 2, 3, 4, 0, 7])
    with caplog.at_level(logging.WARNING):
        found = asked_of(ctx, sampler_by_name("margin"), scores, scores[:0], 6.5)
    assert found.tolist() == [0, 3, 8, 2, 6, 5]
    assert "3 images that are likely of no class are asked, since only 3 others are left" in caplog.text


def test_the_bases_own_labels_are_of_the_rows_it_saw():
    """Pseudo-labels and mined rows must also be numbered in the whole pool."""
    ctx, scores = make_context(5), torch.arange(70).float()

    def base(own: SelectionContext) -> Query:
        return Query(torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5]), torch.tensor([1, 1, 0]), mined_rows=torch.tensor([6]),
                     mined_labels=torch.tensor([2]))

    query = asked_of(ctx, base, scores, scores[:0], 50.0)
    assert [query.rows.tolist(), query.pseudo_rows.tolist(), query.mined_rows.tolist()] == [[50, 52, 54], [51, 53, 55], [56]]


def test_skipped_images_of_no_class_are_nothing_to_cover():
    ctx, seen = make_context(5, n_pool=20), []
    ctx = replace(ctx, skipped_features=ctx.labeled_features[:3], skipped_logits=ctx.labeled_logits[:3])
    for skipped, n_left in [([1.0, 1.0, 1.0], 3), ([0.0, 1.0, 0.0], 1), ([0.0, 0.0, 0.0], 0)]:
        asked_of(ctx, lambda own: seen.append(own) or torch.arange(6), torch.ones(20), torch.tensor(skipped), 0.5)
        assert len(seen[-1].unlabeled_features) == len(seen[-1].unlabeled_logits) == 20 + n_left


def test_many_labels_tell_the_threshold():
    """One in twenty of the labels lies below it. Nearly all of a pool like them is kept, while Otsu would halve it."""
    ctx = make_context(0, n_pool=200, n_labeled=100, n_query=150)
    ctx = replace(ctx, flagged_features=-ctx.labeled_features[:10])
    seen = []
    sampler_by_name("purity")(ctx)
    sampler = sampler_by_name("purity")
    sampler.keywords["base"] = lambda own: seen.append(own.n_pool) or torch.arange(own.n_query)
    sampler(ctx)
    scores, of_labeled = own_scores(ctx, ctx.flagged_features)
    assert seen == [int((scores >= float(of_labeled.double().quantile(0.05))).sum())] and 170 < seen[0] < 200


def test_a_sampler_sees_what_people_flagged(start, truth, tmp_path, monkeypatch):  # noqa: F811
    """With the model's features, from the next round on; skipped images and those corrected since are not among them."""
    seen, select = [], active.asking.select
    monkeypatch.setattr(active.asking, "select", lambda sampler, ctx: seen.append(ctx) or select(sampler, ctx))
    words = "ACTIVE.SAMPLER", "purity", "ACTIVE.PURITY.MIN_FLAGS", "1"
    start(*words)
    first = asked(sheet(tmp_path, 0))
    fill(sheet(tmp_path, 0), dict(zip(first, ["!none", "!none", "!skip", truth[first[3]]], strict=True)))
    start(*words)
    fill(sheet(tmp_path, 1), truth, f"{first[0]},{truth[first[0]]}")
    start(*words)
    assert seen[0].flagged_features is None
    assert [len(ctx.flagged_features) for ctx in seen[1:3]] == [2, 1]
    assert all(ctx.flagged_features.shape[1] == ctx.features.shape[1] for ctx in seen[1:3])


def by_hand_negative(ctx: SelectionContext) -> list[int]:
    """CLIPN's two probabilities of each row, and the scale tried one by one."""
    positive, negative, labeled, pool = (rows.double().tolist() for rows in (
        ctx.text_features, ctx.negative_text_features, ctx.labeled_features, ctx.features))
    flags = [] if ctx.flagged_features is None else ctx.flagged_features.double().tolist()

    def margins_of(row: list[float]) -> list[float]:
        return [plain.dot(row, own) - plain.dot(row, other) for own, other in zip(positive, negative, strict=True)]

    def log_sigmoid(x: float) -> float:
        return min(x, 0.0) - math.log1p(math.exp(-abs(x)))

    def likelihood(scale: float) -> float:
        found = []
        for row, label in zip(labeled, ctx.labels.tolist(), strict=True):
            others = [log_sigmoid(-scale * own) for k, own in enumerate(margins_of(row)) if k != label]
            found.append(log_sigmoid(scale * margins_of(row)[label]) + sum(others) / max(1, len(others)))
        of_flags = [log_sigmoid(-scale * own) for row in flags for own in margins_of(row)]
        return sum(found) / len(found) + (sum(of_flags) / len(of_flags) if of_flags else 0.0)

    scale = max((10 ** (k / 10) for k in range(-10, 21)), key=likelihood) if labeled else 100.0
    scores = []
    for row, logits in zip(pool, ctx.logits.double().tolist(), strict=True):
        said = [math.exp(log_sigmoid(scale * own)) for own in margins_of(row)]
        of_class = [own * p for own, p in zip(said, plain.softmax(logits), strict=True)]
        scores.append(max(of_class) - (1 - sum(of_class)))
    kept = [row for row, score in enumerate(scores) if score > 0]
    return by_margin(ctx, scores, kept)


def test_the_negative_rule_is_its_slow_form():
    """On 200 small pools, every second one with flags, every fifth without labels."""
    sampler, n_kept = sampler_by_name("purity", rule="negative"), []
    for number, ctx in enumerate(small_pools(200)):
        ctx = replace(ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        if number % 2:
            ctx = flagged_beside(ctx, 3, number)
        if number % 5 == 0:
            ctx = replace(ctx, **{name: getattr(ctx, name)[:0] for name in (
                "labels", "labeled_ids", "labeled_features", "labeled_logits")})
        expected = by_hand_negative(ctx)
        n_kept.append(picks(sampler_by_name("margin"), ctx) != ctx.ids[expected].tolist())
        assert picks(sampler, ctx) == ctx.ids[expected].tolist()
    assert 60 < sum(n_kept) < 200


def test_the_negative_rule_begins_by_the_other_one():
    """Before a model there are no negative prompts."""
    ctx = replace(make_context(0), negative_text_features=None)
    assert picks(sampler_by_name("purity", rule="negative"), ctx) == picks(sampler_by_name("purity"), ctx)


def test_the_negative_rule_needs_a_learner_that_has_such_prompts():
    """The error comes before anything is loaded."""
    node = sampler_node()
    node.SAMPLER, node.PURITY.RULE = "purity", "negative"
    with pytest.raises(ConfigError, match="sampler 'purity' compares positive with negative prompts, and CoOp has no negative"):
        check_learner(node, "CoOp", has_negative_texts=False)
    check_learner(node, "DualPrompt", has_negative_texts=True)
