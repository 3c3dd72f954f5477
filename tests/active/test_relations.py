"""What is kept of frozen features: picks are the same without a folder and with one that is empty, warm, damaged or full."""

from dataclasses import replace

import pytest
import torch

import active.kernels.neighbor_lists as listing
import active.kernels.pool_lists as pool
import active.relations as keeping
from active.relations import Relations
from active.selection import select
from active.testing import make_context, sampler_by_name
from dassl.utils.seeding import rng_for
from tests.active.kernels.test_neighbor_lists import clustered
from tests.active.test_loop import toy_run
from tests.active.toy import record_of


@pytest.fixture
def made(monkeypatch):
    """Record what is computed rather than read."""
    found, own = [], keeping.neighbor_lists
    monkeypatch.setattr(keeping, "neighbor_lists", lambda features, k: found.append(k) or own(features, k))
    return found


def test_one_graph_serves_rounds_seeds_and_samplers(tmp_path, made, monkeypatch):
    """It is made once a run without a folder, and once in all with one; more neighbors than it has are another graph."""
    features = clustered(300)
    alone = Relations(features)
    first, second = alone.neighbors(10), alone.neighbors(30)
    assert made == [32] and first.rows is second.rows
    for _ in range(2):
        kept = Relations(features.clone(), tmp_path).neighbors(5)
        assert made == [32, 32] and torch.equal(kept.rows, first.rows) and torch.equal(kept.cosines, first.cosines)
        assert kept.facts == first.facts
    assert Relations(features, tmp_path).neighbors(40).rows.shape == (300, 40) and made == [32, 32, 40]


def test_known_relations_are_those_of_the_last_features(made):
    """Later objects find them by the bytes of the features. Those of earlier features are dropped."""
    known, features = {}, clustered(300)
    first = Relations(features, known=known).neighbors(5)
    assert Relations(features.clone(), known=known).neighbors(5).rows is first.rows and made == [32]
    Relations(clustered(200), known=known).neighbors(5)
    assert len(known) == 1 and made == [32, 32]


def test_a_run_that_asks_for_none_does_not_look_at_its_features(tmp_path, monkeypatch):
    monkeypatch.setattr(Relations, "_hash", lambda self: pytest.fail("the features were read"))
    assert len(toy_run(tmp_path / "run", ACTIVE__SAMPLER="margin")[0].rounds) == 4


def test_other_features_are_another_graph(tmp_path, made):
    """By their bytes: one number that changed is enough, as when a learner tunes the image tower."""
    features = clustered(300)
    Relations(features, tmp_path).neighbors(5)
    features[0, 0] += 1e-6
    Relations(features, tmp_path).neighbors(5)
    assert len(made) == 2 and len(list(tmp_path.glob("neighbors_*.safetensors"))) == 2


@pytest.mark.parametrize("damage", [lambda file: file[:-40], lambda file: file[:-1] + bytes([file[-1] ^ 1]), lambda file: b""])
def test_a_damaged_file_is_made_anew_with_a_warning(tmp_path, made, caplog, damage):
    """Row 48: cut off, altered in one bit, or empty."""
    features = clustered(300)
    first = Relations(features, tmp_path).neighbors(5)
    path = next(tmp_path.glob("neighbors_*.safetensors"))
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = Relations(features, tmp_path).neighbors(5)
    assert len(made) == 2 and torch.equal(again.rows, first.rows) and "made anew" in caplog.text
    assert path.read_bytes() == whole


def test_the_folder_stays_within_its_bound(tmp_path, made, monkeypatch, caplog):
    """The oldest files are removed to make room. A file larger than the bound is used but not kept."""
    monkeypatch.setattr(keeping, "MAX_BYTES", 200_000)
    for seed in range(4):  # 77 KB each
        Relations(clustered(300, seed=seed), tmp_path).neighbors(5)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) <= 200_000
    Relations(clustered(300, seed=3), tmp_path).neighbors(5)
    assert len(made) == 4
    Relations(clustered(900), tmp_path).neighbors(5)
    assert "are not kept" in caplog.text and len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_full_disk_costs_the_file_alone(tmp_path, monkeypatch, caplog):
    """A warning says that the file could not be written, and its content is still used."""
    def full(*_):
        raise keeping.UserError("cannot write it: no space left")

    monkeypatch.setattr(keeping, "save_tensors", full)
    assert len(Relations(clustered(200), tmp_path).neighbors(5).rows) == 200 and "no space left" in caplog.text


@pytest.mark.parametrize("name", ["cec", "probcover"])
def test_picks_are_the_same_with_the_cache_and_without(name, tmp_path, monkeypatch):
    """Picks agree without a folder, with an empty one, and with the file that was written there."""
    monkeypatch.setattr(listing, "CHECKED", 60)
    ctx = make_context(n_pool=400, n_labeled=20, n_query=15)
    features = torch.empty(ctx.n_total, ctx.features.shape[1])
    features[ctx.ids], features[ctx.labeled_ids] = ctx.features, ctx.labeled_features
    sampler, found = sampler_by_name(name, max_pool=100), []
    for folder in (None, tmp_path, tmp_path):
        query = select(sampler, replace(ctx, relations=Relations(features, folder), rng=rng_for(0, "test")))
        found.append((query.rows.tolist(), query.scores.tolist(), query.approximation))
    assert found[0] == found[1] == found[2] and found[0][2]["index"] == "IVF"


def test_a_run_makes_one_graph_and_records_it(tmp_path, made):
    """Four rounds of CEC, and a second run of another seed: one graph in all; each round says what was approximated."""
    values = {"ACTIVE__SAMPLER": "cec", "ACTIVE__CEC__MAX_POOL": 20, "CACHE_DIR": tmp_path / "cache"}
    first, _ = toy_run(tmp_path / "first", **values)
    again, _ = toy_run(tmp_path / "again", **values)
    other, _ = toy_run(tmp_path / "other", SEED=2, **values)
    assert made == [32] and record_of(first) == record_of(again)
    assert all(record.approximation["recall"] == 1.0 for record in (*first.rounds, *other.rounds))
    exact, _ = toy_run(tmp_path / "exact", ACTIVE__SAMPLER="cec", CACHE_DIR=tmp_path / "cache")
    assert all(record.approximation == {} for record in exact.rounds)


def test_exact_lists_are_made_once_a_run_and_pick_the_same(tmp_path, monkeypatch):
    """Four rounds of CEC compare all pairs once; a second run of another seed does not. The picks are those without sharing."""
    values, made, own = {"ACTIVE__SAMPLER": "cec", "CACHE_DIR": tmp_path / "cache"}, [], keeping.all_pairs
    alone = [record_of(toy_run(tmp_path / f"alone{seed}", SEED=seed, **values)[0]) for seed in (1, 2)]
    for module in (keeping, pool):
        monkeypatch.setattr(module, "all_pairs", lambda features, k: made.append(len(features)) or own(features, k))
    monkeypatch.setattr(pool, "KEPT", 1)
    assert alone == [record_of(toy_run(tmp_path / f"kept{seed}", SEED=seed, **values)[0]) for seed in (1, 2)]
    assert made == [60]


def test_the_shape_of_features_is_part_of_what_lists_go_by():
    """The same bytes may be other rows."""
    rows, known = make_context(n_pool=40, width=8).features, {}
    found = [Relations(own, known=known).neighbors(5, exact=True).rows for own in (rows, rows.reshape(80, 4))]
    assert [len(own) for own in found] == [40, 80]


def test_lists_of_another_index_are_made_anew(tmp_path, monkeypatch):
    """Such as with other numbers in later code."""
    features = clustered(1500)
    first = Relations(features, tmp_path).neighbors(8).facts["probes"]
    monkeypatch.setattr(listing, "PROBES", 16)
    assert first == 8 and Relations(features, tmp_path).neighbors(8).facts["probes"] == 16
