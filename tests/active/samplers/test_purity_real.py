"""Purity on real CLIP features and texts: a third of the pool is of the classes (skipped without the data)."""

import json

import numpy as np
import pytest
import torch

from active.context import SelectionContext
from active.testing import picks, sampler_by_name
from benchmarks import surrogate
from dassl.utils.seeding import rng_for
from trainers.clip.frozen_clip import normalized

TEXTS = surrogate.DATA / "text_embeddings"

pytestmark = pytest.mark.skipif(not TEXTS.exists(), reason="the real features are not there")


@pytest.fixture(scope="module")
def open_set():
    """Caltech101's pool, which of its rows are of the 31 classes that LVIS names too, and these classes' texts."""
    data, names = surrogate.load_features("caltech101"), json.loads((TEXTS / "lvis_names.json").read_text())
    rows = {name.replace("_", " ").partition("(")[0].strip().lower(): row for row, name in enumerate(names)}
    known = {label: rows[name.replace("_", " ").lower()] for label, name in enumerate(data.dataset.classnames)
             if name.replace("_", " ").lower() in rows}
    texts = normalized(torch.from_numpy(np.load(TEXTS / "lvis_vitb32_a_name.npy")).float())[list(known.values())]
    return data.features["train"], torch.isin(data.dataset.labels("train"), torch.tensor(list(known))), texts


def share_of_own(open_set, sampler, n_flags: int, n_labels: int) -> float:
    """Return the share of 30 asked images that are of a class, mean of three draws of flags and labels."""
    features, is_own, texts = open_set
    logits, shares = 100 * features @ texts.T, []
    for seed in range(3):
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(features)))
        labeled, flags = order[is_own[order]][:n_labels].sort().values, order[~is_own[order]][:n_flags]
        free = torch.ones(len(features), dtype=torch.bool)
        free[torch.cat([labeled, flags])] = False
        pool = free.nonzero().flatten()
        ctx = SelectionContext(
            ids=pool, features=features[pool], logits=logits[pool], zero_shot_logits=logits[pool], labeled_ids=labeled,
            labeled_features=features[labeled], labeled_logits=logits[labeled], labels=logits[labeled].argmax(1),
            text_features=texts, n_query=30, round=1, n_total=len(features), rng=rng_for(seed, "open set"),
            flagged_features=features[flags] if n_flags else None)
        shares.append(float(is_own[picks(sampler, ctx)].double().mean()))
    return sum(shares) / len(shares)


@pytest.mark.parametrize(("parameters", "n_flags", "n_labels", "expected"), [
    ({"unflagged": "texts"}, 0, 0, 0.60), ({}, 5, 30, 0.62), ({}, 20, 30, 0.70), ({}, 20, 80, 0.80)])
def test_margin_asks_images_of_the_classes_only_where_others_are_dropped(open_set, parameters, n_flags, n_labels, expected):
    """A third of the pool is of the classes; margin alone asks hardly any of it."""
    assert open_set[1].double().mean() == pytest.approx(0.344, abs=1e-3)
    assert share_of_own(open_set, sampler_by_name("margin"), n_flags, n_labels) < 0.05
    found = share_of_own(open_set, sampler_by_name("purity", **parameters), n_flags, n_labels)
    assert found == pytest.approx(expected, abs=0.05)
