"""`ACTIVE.DEVICE`: where a run computes its picks, and what its record says about it."""

import logging
from types import SimpleNamespace

import pytest
import torch

import train
from active.build import carry_out
from active.devices import check_device, selection_device
from active.kernels.memory import need_memory
from active.record.folder import note_selection
from active.record.results import RunResult
from active.relations import Relations
from active.testing import check_card, sampler_by_name
from dassl.utils.cards import free_bytes
from dassl.utils.errors import ConfigError
from tests.active.toy import ToyTrainer, record_of, toy_config, toy_task
from tests.pretend_cuda import MEMORY, PretendCuda, pretend_cuda

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
SPLIT = torch.zeros(1000, 512), torch.zeros(1000, 100)


class OnCard(ToyTrainer):
    """A trainer whose models are on the card, as far as the loop can tell."""

    device = CUDA


@pytest.fixture
def card(monkeypatch):
    """A machine with a pretended card."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "pretended")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    with pretend_cuda() as card:
        yield card


def _run(output, trainer=OnCard, **values):
    dataset, features, texts = toy_task()
    values = {"ACTIVE__SAMPLER": "uherding", "CACHE_DIR": output / "cache"} | values
    return carry_out(toy_config(output, **values), dataset, trainer(features, texts))


@pytest.mark.parametrize("sampler", ["uherding", "cbsq", "cec", "random"])
def test_a_run_that_selects_on_a_card_is_that_of_the_cpu(card, tmp_path, sampler):
    """All rounds are equal except for the device of the picks, which the record names. All else gets only CPU tensors."""
    runs = {name: _run(tmp_path / name, ACTIVE__DEVICE=name, ACTIVE__SAMPLER=sampler) for name in ("cpu", "cuda", "auto")}
    assert record_of(runs["cpu"]) == record_of(runs["cuda"]) == record_of(runs["auto"])
    assert [run.environment.get("selection") for run in runs.values()] == [None, "cuda", "cuda"]
    assert all(run.certificate == runs["cpu"].certificate for run in runs.values())
    assert card.uploads.total() > 0


def test_what_torch_holds_without_using_it_is_free(card, monkeypatch):
    """A process that has trained before picks where a fresh one would."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (10, MEMORY))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda *_: MEMORY // 2)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda *_: 2**20)
    assert free_bytes(CUDA) == 10 + MEMORY // 2 - 2**20
    assert selection_device("auto", CUDA, *SPLIT) == CUDA
    need_memory("badge", 2**30, CUDA)


def test_a_run_that_was_killed_before_its_first_round_names_the_device_that_it_went_on_with(tmp_path):
    """Its record was begun on a card."""
    result = SimpleNamespace(rounds=[], environment={"selection": "cuda"})
    note_selection(result, "cpu")
    assert result.environment == {}
    note_selection(result, "cuda")
    assert result.environment == {"selection": "cuda"}


@pytest.mark.parametrize(("asked", "model", "free", "expected"), [
    ("auto", CUDA, MEMORY, CUDA), ("auto", CPU, MEMORY, CPU), ("cpu", CUDA, MEMORY, CPU),
    ("cuda", CPU, 0, torch.device("cuda")), ("auto", CUDA, 16 * (512 + 200) * 1000, CUDA),
    ("auto", CUDA, 16 * (512 + 200) * 1000 - 1, CPU)])
def test_auto_is_the_card_of_the_model_if_there_is_room(card, monkeypatch, caplog, asked, model, free, expected):
    """Four times the size of the float32 numbers must be free. If not, the log says so with both figures."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (free, MEMORY))
    with caplog.at_level(logging.INFO):
        assert selection_device(asked, model, *SPLIT) == expected
    assert ("GiB free" in caplog.text) == (asked == "auto" and model == CUDA and expected == CPU)


def test_auto_is_the_cpu_where_runs_must_repeat(card, tmp_path):
    """This holds under `DETERMINISTIC`. A card that is asked for by name is still used."""
    assert "selection" not in _run(tmp_path / "auto", DETERMINISTIC=True).environment
    assert _run(tmp_path / "cuda", DETERMINISTIC=True, ACTIVE__DEVICE="cuda").environment["selection"] == "cuda"


@pytest.mark.parametrize(("values", "remedy"), [({}, "torch finds no CUDA device here; set it to auto or cpu"),
                                                ({"USE_CUDA": False}, "USE_CUDA is false; set USE_CUDA true")])
def test_a_card_that_is_not_there_or_not_to_be_used_is_refused(tmp_path, monkeypatch, values, remedy):
    """A ConfigError is raised before the run begins."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(values))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "pretended")
    with pytest.raises(ConfigError, match=rf"^ACTIVE\.DEVICE is cuda, but {remedy}"):
        _run(tmp_path, ACTIVE__DEVICE="cuda", **values)
    assert not (tmp_path / "results.json").exists()
    check_device(toy_config(tmp_path, ACTIVE__DEVICE="auto", **values))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_the_command_line_refuses_it_before_anything_is_loaded(tmp_path, capsys):
    """Row 49: one line and exit code 2."""
    words = ["--config-file", "configs/quickstart.yaml", "--root", str(tmp_path), "--output-dir", str(tmp_path / "run")]
    assert train.main([*words, "ACTIVE.DEVICE", "cuda"]) == 2
    said = capsys.readouterr().err
    assert said == "train.py: ACTIVE.DEVICE is cuda, but torch finds no CUDA device here; set it to auto or cpu\n"
    assert not list(tmp_path.iterdir())


def _of_numpy(ctx):
    return torch.from_numpy(ctx.rng.permutation(ctx.n_pool)[: ctx.n_query] + 0 * int(ctx.features.numpy().any()))


def _first_to_the_cpu(ctx):
    return _of_numpy(ctx.to(CPU))


@pytest.mark.parametrize("sampler", [_first_to_the_cpu, sampler_by_name("coreset")])
def test_the_kit_passes_samplers_for_any_device(card, sampler):
    """Some of them compute on the card; the others start by fetching the context from it."""
    check_card(sampler)


def test_the_kit_catches_a_sampler_for_the_cpu_alone(card):
    """NumPy cannot read a tensor on a card."""
    with pytest.raises(TypeError, match="numpy"):
        check_card(_of_numpy)


@pytest.mark.parametrize(("first", "then", "names"), [
    ("cpu", "auto", None), ("cpu", "cuda", "cpu and cuda"), ("cuda", "cpu", "cuda and cpu"), ("cuda", "auto", "cuda")])
def test_a_run_goes_on_where_it_was_begun_unless_told_otherwise(card, tmp_path, caplog, first, then, names):
    """A run whose record lacks the key, or names the CPU, stays there. A change is logged; here the picks are the same."""
    _run(tmp_path, ACTIVE__DEVICE=first, ACTIVE__ROUNDS=2)
    result = _run(tmp_path, ACTIVE__DEVICE=then)
    assert result.environment.get("selection") == names
    assert ("picks were computed on" in caplog.text) == (names is not None and "and" in names)
    assert "goes on in another environment" not in caplog.text
    assert RunResult.read(tmp_path / "results.json").environment == result.environment
    assert record_of(result) == record_of(_run(tmp_path / "whole", ACTIVE__DEVICE="cpu"))


def test_lists_of_neighbors_that_a_card_made_are_kept_apart(tmp_path):
    """Their last digits differ. Lists made on the CPU keep their name; lists that faiss makes on the CPU serve both."""
    features = torch.nn.functional.normalize(torch.arange(120.0).sin().view(40, 3), dim=1)
    relations = Relations(features, tmp_path)
    here = relations.neighbors(5, exact=True)
    with pretend_cuda():
        there = Relations(features, tmp_path).neighbors(5, exact=True, device=CUDA)
        assert isinstance(there.rows, PretendCuda)
        assert torch.equal(there.rows.cpu(), here.rows)
        approximate = Relations(features, tmp_path).neighbors(5, device=CUDA)
        assert approximate.rows.device == CUDA
    assert len(list(tmp_path.glob("neighbors_*"))) == 3
    relations.neighbors(5)
    assert len(list(tmp_path.glob("neighbors_*"))) == 3
