"""Images that people could not label: no candidates, but a part of what samplers cover."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from active.context import SelectionContext
from active.registry import SAMPLERS
from active.testing import make_context, picks, sampler_by_name

COVERING = {"activeft", "bait_binary", "cb", "cbsq", "cec", "dcom", "maxherding", "probcover", "promptherding", "typiclust",
            "uherding"}
NAMES = sorted({component.name for component in SAMPLERS} - {"purity", "replay", "schedule", "tcm"})  # others in them


def with_skipped(seed: int, n_skipped: int = 30) -> SelectionContext:
    """Return a context beside whose pool lie as many skipped images, all near to one of its rows."""
    ctx = make_context(seed, n_pool=40)
    noise = torch.randn(n_skipped, ctx.features.shape[1], generator=torch.Generator().manual_seed(seed))
    near = F.normalize(ctx.features[seed % 40] + 0.2 * F.normalize(noise, dim=1), dim=1)
    return replace(ctx, skipped_features=near, skipped_logits=20 * near @ ctx.text_features.T)


@pytest.mark.parametrize("name", NAMES)
def test_samplers_that_cover_the_pool_cover_skipped_images_too(name):
    """Other samplers give the same answer as without them."""
    sampler, differ = sampler_by_name(name), 0
    for seed in range(12):
        ctx = with_skipped(seed)
        asked = picks(sampler, ctx)
        assert set(asked) <= set(ctx.ids.tolist())
        differ += asked != picks(sampler, replace(ctx, skipped_features=None, skipped_logits=None))
    assert (differ > 0) == (name in COVERING)


@pytest.mark.parametrize("name", ["cec", "typiclust", "probcover"])
def test_where_many_were_skipped_an_image_is_asked(name):
    """Most unlabeled images are skipped ones, so the row in their midst is worth a label."""
    sampler = sampler_by_name(name, **({"delta": 0.5} if name == "probcover" else {}))
    found = [asks_among_them(sampler, with_skipped(seed, 200), seed) for seed in range(12)]
    assert sum(found) >= 10


def asks_among_them(sampler, ctx: SelectionContext, seed: int) -> bool:
    """Return whether one of the rows that lie as near to the skipped images as the one in their midst is asked."""
    center = F.normalize(ctx.skipped_features.mean(0), dim=0)
    nearest = ctx.ids[(ctx.features @ center).topk(3).indices]
    return bool(torch.isin(nearest, torch.tensor(picks(sampler, ctx))).any())


def test_probcover_asks_on_where_no_ball_reaches_a_skipped_image():
    """It lies apart from all candidates, and stays uncovered; the rest of the query is picked farthest first."""
    ctx = make_context(0, n_pool=10, n_query=9, width=4)
    alone = -F.normalize(ctx.features.mean(0, keepdim=True), dim=1)
    ctx = replace(ctx, skipped_features=alone, skipped_logits=20 * alone @ ctx.text_features.T)
    assert len(picks(sampler_by_name("probcover", delta=0.1), ctx)) == 9
