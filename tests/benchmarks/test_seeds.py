"""The comparison of k-means seeds: each form is what its name says (on real features; skipped without the data)."""

import numpy as np
import pytest
import torch

import active.kernels.k_means as clustering
from active.kernels.k_means import k_means
from benchmarks import surrogate
from benchmarks.samplers import clusterings
from benchmarks.seeds import SEEDINGS, first_round, inertia_of, k_means_by, worth

needs_data = pytest.mark.skipif(not surrogate.DATA.exists(), reason="the real features are not there")


def _rows() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(200, 8, generator=torch.Generator().manual_seed(0)), dim=1)


def test_greedy_seeds_are_those_of_k_means_itself():
    """This holds in both benchmarks. Plain seeds differ, and every changed limit is restored."""
    limits, rows = (clustering.SKLEARN_LIMIT, clustering.LARGE, clustering.n_candidates), _rows()
    expected = k_means(rows, 9, np.random.default_rng(0))[0]
    own, plain = (k_means_by(seeding, rows, 9, 0)[0] for seeding in ("greedy", "plain"))
    assert torch.equal(own, expected) and not torch.equal(plain, expected)
    answers = {name: form() for name, form in clusterings(rows, 9).items() if "defaults" not in name}
    assert torch.equal(answers["greedy seeds, scikit-learn"][0], expected)
    assert torch.equal(answers["plain seeds, scikit-learn"][0], plain)
    assert (clustering.SKLEARN_LIMIT, clustering.LARGE, clustering.n_candidates) == limits


@needs_data
def test_greedy_seeds_are_worth_something_to_the_first_round():
    """On Caltech101, four seeds: lower inertia and more classes than from plain seeds, within 1 % of scikit-learn's."""
    data = surrogate.load_features("caltech101")
    ctx = first_round(data, surrogate.load_text_tower())
    means = {seeding: np.mean([worth(data, ctx, seeding, seed) for seed in range(4)], axis=0) for seeding in SEEDINGS}
    assert means["greedy"][0] < 0.97 * means["plain"][0] and means["greedy"][1] > means["plain"][1]
    assert means["greedy"][0] == pytest.approx(means["scikit-learn's own"][0], rel=0.01)


def test_inertia_by_hand():
    """Two rows a unit from their center, one on it."""
    rows = torch.tensor([[0.0, 1.0], [0.0, -1.0], [5.0, 0.0]])
    assert inertia_of(rows, torch.tensor([[0.0, 0.0], [5.0, 0.0]]), torch.tensor([0, 0, 1])) == 2
