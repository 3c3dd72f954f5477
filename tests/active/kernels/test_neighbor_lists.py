"""Neighbor lists by an index: against exact ones, repeatable, and refused where they miss too much."""

import faiss
import pytest
import torch
import torch.nn.functional as F

import active.kernels.neighbor_lists as listing
import active.kernels.scores as scores
from active.kernels.neighbor_lists import exact_lists, neighbor_lists
from active.kernels.neighbors import neighbors
from dassl.utils.errors import UserError


def clustered(n: int, width: int = 16, n_classes: int = 40, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(n_classes, width, generator=generator)
    rows = centers[torch.randint(n_classes, (n,), generator=generator)] + 0.5 * torch.randn(n, width, generator=generator)
    return F.normalize(rows, dim=1)


@pytest.mark.parametrize("block", [100, scores.BLOCK])
def test_exact_lists_are_those_of_all_pairs(monkeypatch, block):
    """Of some rows, in any order and in blocks of any size; the row itself is left out, and copies of it are not."""
    monkeypatch.setattr(scores, "BLOCK", block)
    features = clustered(120)
    features[7] = features[3]
    rows, cosines = neighbors(features, 9)
    queries = torch.tensor([7, 100, 3, 0])
    found, near = exact_lists(features, queries, 9)
    assert torch.equal(found.long(), rows[queries]) and torch.allclose(near, cosines[queries], atol=1e-6)
    assert found[0, 0] == 3 and found[2, 0] == 7


def test_small_pools_are_compared_as_a_whole():
    """This holds for as many rows as would be checked anyway. k is at most the number of other rows."""
    features = clustered(50)
    lists, (rows, _) = neighbor_lists(features, 100), neighbors(features, 49)
    assert torch.equal(lists.rows.long(), rows) and lists.facts == {"index": "exact", "recall": 1.0}


def test_the_recall_is_that_of_the_lists():
    """The recall measured on 1,000 rows holds for all, and the number of probes was doubled until it sufficed."""
    features = clustered(3000)
    lists, (rows, cosines) = neighbor_lists(features, 10), neighbors(features, 10)
    recall = float((lists.cosines >= cosines[:, -1:] - 1e-6).float().mean())
    assert lists.facts["recall"] >= 0.95 and recall == pytest.approx(lists.facts["recall"], abs=0.01)
    assert float((lists.rows == rows).float().mean()) > 0.8
    assert (lists.rows != torch.arange(3000)[:, None]).all()
    own = (features[:, None] * features[lists.rows.clamp(min=0).long()]).sum(2)
    assert torch.allclose(own[lists.rows >= 0], lists.cosines[lists.rows >= 0], atol=1e-6)  # float32, of the rows themselves
    assert (lists.cosines.diff() <= 0).all()


def test_lists_repeat_whatever_the_threads_and_blocks(monkeypatch):
    """Index and search are the same with one thread and three, and however many rows are searched at once."""
    features, found = clustered(2500), []
    before = faiss.omp_get_max_threads()
    for n_threads, together, block in ((1, 16384, scores.BLOCK), (3, 700, 20_000), (1, 16384, scores.BLOCK)):
        monkeypatch.setattr(listing, "TOGETHER", together)
        monkeypatch.setattr(scores, "BLOCK", block)
        faiss.omp_set_num_threads(n_threads)
        found.append(neighbor_lists(features, 12))
    faiss.omp_set_num_threads(before)
    assert all(torch.equal(found[0].rows, own.rows) and torch.equal(found[0].cosines, own.cosines) for own in found[1:])


def test_a_recall_that_stays_low_is_refused(monkeypatch):
    """Probes are doubled first. If even the most are too few, one line gives the recall found and the recall needed."""
    features = clustered(2000)
    monkeypatch.setattr(listing, "PROBES", 1)
    assert neighbor_lists(features, 10).facts["probes"] > 1
    monkeypatch.setattr(listing, "MOST_PROBES", 1)
    with pytest.raises(UserError, match=r"2,000 images hold 0\.\d+ of the true neighbors with 1 of 179 .*hold 0\.95.*EXACT"):
        neighbor_lists(features, 10)


def test_copies_of_one_image_are_each_others_neighbors():
    """More copies than a list is long: no row is its own neighbor, and all cosines are 1."""
    features = clustered(1200)
    features[:60] = features[0]
    lists = neighbor_lists(features, 8)
    assert (lists.rows[:60] < 60).all() and (lists.rows != torch.arange(1200)[:, None]).all()
    assert torch.allclose(lists.cosines[:60], torch.ones(60, 8), atol=1e-6)


def test_lists_repeat_where_k_means_sees_some_rows_alone(monkeypatch):
    """They are the same ones each time."""
    monkeypatch.setattr(listing, "TRAINED", 2)
    first, second = (neighbor_lists(clustered(2500), 12) for _ in range(2))
    assert torch.equal(first.rows, second.rows) and first.facts == second.facts


def test_ties_go_to_the_lower_row():
    """All rows have a copy, which is as near to others as they are."""
    lists = neighbor_lists(clustered(600).repeat(2, 1), 8)
    tied = (lists.cosines.diff() == 0) & (lists.rows[:, 1:] >= 0)
    assert tied.float().mean() > 0.3 and (lists.rows.diff()[tied] > 0).all()


def test_as_many_lists_are_checked_as_is_said(monkeypatch):
    n_checked, own = [], listing.exact_lists
    monkeypatch.setattr(listing, "exact_lists", lambda rows, some, k: n_checked.append(len(some)) or own(rows, some, k))
    neighbor_lists(clustered(2500), 12)
    assert n_checked == [listing.CHECKED]
