"""Scores of samplers: what they are, that they change nothing, and where they are written."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from active.build import carry_out
from active.context import Query, SelectionContext
from active.oracles.asked import read_query, write_query
from active.oracles.oracle import Question
from active.registry import choosing_samplers
from active.selection import ContractError, select
from active.testing import make_context, sampler_by_name, small_pools
from dassl.utils.seeding import rng_for
from tests.active.samplers import plain
from tests.active.toy import ToyTrainer, record_of, toy_config, toy_task
from tests.test_answers import photos, sheet, start, truth  # noqa: F401

SCORED = {"badge", "bait_binary", "cec", "coreset", "dcom", "dual_prompt", "entropy", "least_confidence", "margin",
          "maxherding", "pcb", "pcoreset", "probcover", "promptherding", "purity", "schedule", "tcm", "tfs",
          "typiclust", "uherding"}
OF_POOL = SCORED - {"coreset", "pcoreset", "probcover", "schedule", "tcm", "typiclust"}


def answered(name: str, ctx: SelectionContext, **parameters) -> Query:
    return select(sampler_by_name(name, **parameters), replace(ctx, rng=rng_for(0, "picks")))


@pytest.mark.parametrize("name", choosing_samplers())
def test_scores_are_those_of_all_picks_or_none(name):
    """The context has many labels, since `tcm` then works like margin."""
    for labels in (3, 12):
        query = answered(name, make_context(2, n_labeled=labels))
        has = name in SCORED
        assert (query.scores is not None) == has and (query.pool_scores is not None) == (
            name in OF_POOL or (name in ("schedule", "tcm") and labels == 12))
        if has:
            assert query.scores.shape == query.rows.shape and bool(torch.isfinite(query.scores).all())


def distances_at_pick(rows: list[list[float]], centers: list[list[float]], picked: list[int]) -> list[float]:
    found = []
    for number, row in enumerate(picked):
        before = [*centers, *(rows[other] for other in picked[:number])]
        found.append(min((math.dist(rows[row], other) for other in before), default=math.nan))
    return found


def test_scores_by_hand():
    """On 100 small pools: entropy, margin, confidence of every row; distances, gradients, gains and balls at the pick."""
    for ctx in small_pools(100):
        ctx = replace(ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        probs = [plain.softmax(row) for row in ctx.logits.double().tolist()]
        of_pool = {"entropy": [plain.entropy_of(row) for row in probs], "least_confidence": [1 - max(row) for row in probs],
                   "margin": [1 - sorted(row)[-1] + sorted(row)[-2] for row in probs]}
        for name, expected in of_pool.items():
            query = answered(name, ctx)
            assert query.pool_scores.tolist() == pytest.approx(expected, abs=1e-5)
            assert query.scores.tolist() == query.pool_scores[query.rows].tolist()
        features, labeled = ctx.features.double().tolist(), ctx.labeled_features.double().tolist()
        known = [plain.softmax(row) for row in ctx.labeled_logits.double().tolist()]
        for name, rows, centers in (("coreset", features, labeled), ("pcoreset", probs, known)):
            query = answered(name, ctx)
            assert query.scores.tolist() == pytest.approx(distances_at_pick(rows, centers, query.rows.tolist()), abs=1e-3)
        errors = np.array(probs) - np.eye(ctx.n_classes)[ctx.logits.argmax(1).numpy()]
        gradients = (errors[:, :, None] * np.array(features)[:, None, :]).reshape(len(features), -1).tolist()
        query = answered("badge", ctx)
        expected = [gap**2 for gap in distances_at_pick(gradients, [], query.rows.tolist())]
        assert query.scores.tolist()[1:] == pytest.approx(expected[1:], abs=1e-4)
        assert query.pool_scores.tolist() == pytest.approx([plain.dot(row, row) for row in gradients], abs=1e-5)


def test_gains_and_balls_by_hand():
    """What each pick of herding and of ProbCover adds to what is covered."""
    for ctx in small_pools(50):
        ctx = replace(ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        rows, labeled = ctx.features.double(), ctx.labeled_features.double()
        kernels, covered = ((2 * rows @ own.T - 2).exp() for own in (rows, labeled))
        covered = covered.amax(1)
        query = answered("maxherding", ctx)
        assert query.pool_scores.tolist() == pytest.approx((kernels - covered).clamp(min=0).sum(1).tolist(), abs=1e-5)
        for row, score in zip(query.rows.tolist(), query.scores.tolist(), strict=True):
            assert score == pytest.approx(float((kernels[row] - covered).clamp(min=0).sum()), abs=1e-5)
            covered = torch.maximum(covered, kernels[row])
        query, threshold = answered("probcover", ctx, delta=0.5), 1 - 0.5**2 / 2
        uncovered = ~(rows @ labeled.T > threshold).any(1)
        for row, score in zip(query.rows.tolist(), query.scores.tolist(), strict=True):
            ball = (rows @ rows[row] > threshold) & uncovered
            assert score == int(ball.sum())
            uncovered = uncovered & ~ball


def test_wrappers_hand_scores_on():
    """PCB those of its candidates, purity those of the rows that its base saw; others have none."""
    ctx = make_context(4, n_query=5)
    entropies = answered("entropy", ctx).pool_scores
    query = answered("pcb", ctx, base="entropy", gamma=0.5)
    assert torch.equal(query.scores, entropies[query.rows]) and torch.equal(query.pool_scores, entropies)
    query = answered("purity", ctx, base="entropy", unflagged="texts")
    kept = query.pool_scores.isfinite()
    assert torch.equal(query.scores, entropies[query.rows]) and torch.equal(query.pool_scores[kept], entropies[kept])
    assert 0 < int(kept.sum()) < ctx.n_pool and answered("pcb", ctx, base="random").scores is None


def test_scores_of_the_pool_follow_its_order():
    """Rows may stand in any order; a score stays with its image."""
    ctx, order = make_context(3), torch.from_numpy(np.random.default_rng(0).permutation(70))
    shuffled = replace(ctx, ids=ctx.ids[order], features=ctx.features[order], logits=ctx.logits[order],
                       zero_shot_logits=ctx.zero_shot_logits[order])
    one, other = answered("margin", ctx), answered("margin", shuffled)
    assert torch.equal(one.pool_scores[order], other.pool_scores) and torch.equal(one.scores, other.scores)


@pytest.mark.parametrize("values", [{"scores": torch.ones(5)}, {"pool_scores": torch.ones(6)}, {"scores": torch.ones(6, 1)}])
def test_scores_of_another_length_are_refused(values):
    with pytest.raises(ContractError, match=r"scores of shape \("):
        select(lambda ctx: Query(torch.arange(6), **values), make_context())


def toy_run(output: Path, stop=None, **values):
    dataset, features, texts = toy_task()
    return carry_out(toy_config(output, **values), dataset, ToyTrainer(features, texts, stop))


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_a_run_writes_them_on_request_alone(tmp_path):
    """Picks in their order, then the rest of the pool by falling score; the record is the same with and without."""
    runs = {wanted: toy_run(tmp_path / wanted, ACTIVE__SAMPLER="entropy", LOG__SCORES=wanted)
            for wanted in ("none", "picks", "pool")}
    assert record_of(runs["none"]) == record_of(runs["picks"]) == record_of(runs["pool"])
    assert not (tmp_path / "none" / "queries").exists()
    for record in runs["pool"].rounds:
        name = f"queries/round_{record.round:03d}_scores.csv"
        picks, pool = table(tmp_path / "picks" / name), table(tmp_path / "pool" / name)
        assert [row["path"] for row in picks] == record.queried and [row["pick"] for row in picks] == list("123456")
        assert pool[:6] == picks and len(pool) == 60 - 6 * record.round and not any(row["pick"] for row in pool[6:])
        scores = [float(row["score"]) for row in pool]
        assert scores == sorted(scores, reverse=True)


def test_samplers_without_scores_write_no_file(tmp_path, caplog):
    """The log says so."""
    caplog.set_level("INFO")
    toy_run(tmp_path, ACTIVE__SAMPLER="random", LOG__SCORES="pool")
    assert not (tmp_path / "queries").exists() and "round 1: random gives this query no scores" in caplog.text


def test_a_run_with_scores_resumes_as_one_without(tmp_path):
    whole = toy_run(tmp_path / "whole", ACTIVE__SAMPLER="badge")
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path / "stopped", stop=("fit", 2), ACTIVE__SAMPLER="badge", LOG__SCORES="pool")
    assert record_of(toy_run(tmp_path / "stopped", ACTIVE__SAMPLER="badge")) == record_of(whole)


def test_a_question_keeps_them(tmp_path):
    """A missing value stays None, and a query without scores is written as before."""
    dataset, query, basis = toy_task()[0], Query(torch.tensor([5, 2]), scores=torch.tensor([0.5, torch.nan])), ("a", "b")
    write_query(tmp_path / "with.json", basis, query, dataset)
    write_query(tmp_path / "without.json", basis, replace(query, scores=None), dataset)
    found = read_query(tmp_path / "with.json", basis, dataset)
    assert found.scores[0] == 0.5 and found.scores[1].isnan()
    assert read_query(tmp_path / "without.json", basis, dataset).scores is None
    assert list(json.loads((tmp_path / "without.json").read_text())) == ["stands_on", "queried", "pseudo", "mined", "checksum"]


def test_beside_an_audit_people_see_none():
    """Images without a score would be those of the audit."""
    query = Query(torch.tensor([5, 2]), scores=torch.tensor([0.5, torch.nan]))
    asked = Question(0, query, ("", ""), torch.tensor([]), lambda rows: rows)
    assert asked.scores == {5: 0.5} and replace(asked, audit=torch.tensor([7])).scores == {}
    assert replace(asked, query=replace(query, scores=None)).scores == {}


def test_the_contact_sheet_shows_them_on_request_alone(start, tmp_path):  # noqa: F811
    """They are next to each image. The other files of a question stay the same, and a resumed question keeps its scores."""
    for output, words in (("with", ("LOG.SCORES", "picks")), ("without", ())):
        start("ACTIVE.SAMPLER", "entropy", *words, output=output)
    html, bare = (sheet(tmp_path, 0, output).with_suffix(".html").read_text() for output in ("with", "without"))
    scores = [float(row["score"]) for row in table(tmp_path / "with" / "queries" / "round_000_scores.csv")]
    for score in scores:
        assert f"<br>score {score:.4g}<ol>" in html
        html = html.replace(f"<br>score {score:.4g}<ol>", "<ol>")
    assert html == bare
    names = {output: {file.name for file in (tmp_path / output / "queries").iterdir()} for output in ("with", "without")}
    assert names["with"] - names["without"] == {"round_000_scores.csv"}
    for name in names["without"] - {"round_000.html", "round_000_query.json"}:
        assert (tmp_path / "with" / "queries" / name).read_bytes() == (tmp_path / "without" / "queries" / name).read_bytes()
