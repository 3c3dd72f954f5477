"""Skipped images in a run are no candidates but targets of samplers. Once somebody labels them, they no longer are."""

import active.asking
from tests.test_answers import asked, fill, photos, rounds, sheet, start, truth  # noqa: F401


def test_samplers_see_skipped_images_beside_the_pool(start, truth, tmp_path, monkeypatch):  # noqa: F811
    """They have the model's features from the next round on. Images of no class, and corrected ones, are not among them."""
    seen, select = [], active.asking.select
    monkeypatch.setattr(active.asking, "select", lambda sampler, ctx: seen.append(ctx) or select(sampler, ctx))
    start("ACTIVE.SAMPLER", "cec")
    first = asked(sheet(tmp_path, 0))
    answers = dict(zip(first, ["!skip", "!skip", "!none", truth[first[3]]], strict=True))
    fill(sheet(tmp_path, 0), answers)
    start("ACTIVE.SAMPLER", "cec")
    second = asked(sheet(tmp_path, 1))
    fill(sheet(tmp_path, 1), truth, f"{first[0]},{truth[first[0]]}")
    start("ACTIVE.SAMPLER", "cec")
    assert seen[0].skipped_features is None and seen[0].unlabeled_features is seen[0].features
    assert [len(ctx.skipped_features) for ctx in seen[1:3]] == [2, 1]
    for ctx in seen[1:3]:
        assert len(ctx.unlabeled_features) == len(ctx.unlabeled_logits) == ctx.n_pool + len(ctx.skipped_features)
        assert len(ctx.skipped_logits) == len(ctx.skipped_features)
    assert not set(first) & set(second) and rounds(tmp_path)[1].n_skipped == 1
