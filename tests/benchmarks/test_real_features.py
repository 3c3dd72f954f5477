"""The study of all samplers on real features: its runs (skipped without the data) and its tables, solved by hand."""

from collections import Counter

import pandas as pd
import pytest
import torch

from active.record.results import RunResult
from benchmarks import surrogate
from benchmarks.real_features import SharedFits, accuracy_table, difference_table, folder_of, read, run_samplers
from dassl.utils.run_folder import RESULTS
from tests.active.toy import ToyTrainer
from trainers.core.trainer import PromptTrainer

needs_data = pytest.mark.skipif(not surrogate.DATA.exists(), reason="the real features are not there")
SAMPLERS = ("random", "coreset", "dual_prompt")
ONE_EPOCH = {"OPTIM.MAX_EPOCH": "1", "ACTIVE.SELECTOR_OPTIM.MAX_EPOCH": "1"}


@pytest.fixture(scope="module")
def fits() -> list[int]:
    """The round of each model that `output` has fitted."""
    return []


@pytest.fixture(scope="module")
def output(tmp_path_factory, fits):
    """The records of three samplers on DTD with one epoch a round, also for the learner that selects."""
    path = tmp_path_factory.mktemp("real_features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptTrainer, "fit", lambda trainer, rows, labels, round, *more, fit=PromptTrainer.fit: (
            fits.append(round), fit(trainer, rows, labels, round, *more))[1])
        run_samplers(path, "dtd", "1%", 1, SAMPLERS, ONE_EPOCH)
    return path


def record_of(output, sampler) -> RunResult:
    return RunResult.read(folder_of(output, "dtd", "1%", sampler, 1) / RESULTS)


@needs_data
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_run_is_six_rounds_of_its_budget(output, sampler):
    """1 % of DTD's 1,128 pool images are 11 labels; the record holds the accuracy of all six rounds."""
    result = record_of(output, sampler)
    assert result.finished and [record.n_paid for record in result.rounds] == [11, 22, 33, 44, 55, 66]
    assert all(0.1 < record.accuracy < 0.6 for record in result.rounds)


@needs_data
def test_dual_prompt_selects_and_coop_is_reported(output):
    """DualPrompt without visual prompts mines and selects; what is reported is CoOp's."""
    result = record_of(output, "dual_prompt")
    assert result.config["TRAINER"]["NAME"] == "CoOp" and result.config["TRAINER"]["DUALPROMPT"]["N_CTX_VISION"] == 0
    assert all(record.n_pseudo > 0 and "fit_selector" in record.seconds for record in result.rounds)


@needs_data
def test_random_first_rounds_share_one_fit(output, fits):
    """Samplers that begin at random ask the same images, so the first model is fitted once and later ones are not shared."""
    first, second = record_of(output, "random"), record_of(output, "coreset")
    assert first.rounds[0].query_hash == second.rounds[0].query_hash
    assert first.rounds[0].accuracy == second.rounds[0].accuracy
    assert first.rounds[1].query_hash != second.rounds[1].query_hash
    assert Counter(fits) == {-1: 1, 0: 3, **dict.fromkeys(range(1, 6), 4)}  # DualPrompt selects by another learner


@needs_data
def test_finished_runs_are_left_alone(output):
    """The same command again rewrites no record of a finished run."""
    paths = [folder_of(output, "dtd", "1%", sampler, 1) / RESULTS for sampler in SAMPLERS[:2]]
    before = [path.stat().st_mtime_ns for path in paths]
    run_samplers(output, "dtd", "1%", 1, SAMPLERS[:2], ONE_EPOCH)
    assert [path.stat().st_mtime_ns for path in paths] == before


@needs_data
def test_the_table_reads_what_the_runs_wrote(output):
    """Every round of every record is a row, with its accuracy in percent."""
    rounds = read(output)
    assert len(rounds) == 18 and set(rounds.sampler) == set(SAMPLERS)
    own = rounds[rounds.sampler == "coreset"].sort_values("round")
    assert own.accuracy.tolist() == [100 * record.accuracy for record in record_of(output, "coreset").rounds]


def test_only_equal_fits_are_shared():
    """Other rows, labels, rounds or mined images are other fits; the shared model is the trainer's own."""
    features = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    trainer = ToyTrainer({"train": features}, features[:2])
    shared, rows, labels = SharedFits(trainer), torch.tensor([1, 2]), torch.tensor([0, 1])
    fits = [(rows, labels, 0), (rows, labels, 1), (rows, labels.flip(0), 0), (rows + 1, labels, 0),
            (rows, labels, 0, (rows + 3, labels)), (rows, labels, 0, (rows + 3, labels.flip(0)))]
    models = [shared.fit(*arguments) for arguments in fits]
    assert len(trainer.fitted) == len(fits)
    assert all(shared.fit(*arguments) is model for arguments, model in zip(fits, models, strict=True))
    assert len(trainer.fitted) == len(fits) and torch.equal(models[0], trainer.fit(*fits[0]))


def rounds_of(accuracies: dict[tuple[str, str], list[list[float]]]) -> pd.DataFrame:
    """Return the rounds of `{(data, sampler): accuracy by seed and round}`."""
    rows = [[data, "1%", sampler, seed, round, value, 5 * (round + 1), round + 3]
            for (data, sampler), seeds in accuracies.items() for seed, values in enumerate(seeds)
            for round, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["data", "protocol", "sampler", "seed", "round", "accuracy", "paid", "classes"])


def test_accuracy_table_by_hand():
    """Random stands first; a sampler is marked where it is further from random's mean than random's standard deviation."""
    table = accuracy_table(rounds_of({("x", "badge"): [[10, 23], [12, 25]], ("x", "random"): [[20, 20], [24, 24]]}))
    assert table.index.tolist() == ["random", "badge"]
    assert table.columns.tolist() == ["5 labels", "10 labels", "paid", "classes, first / last"]
    assert table.loc["random"].tolist() == ["22.0 ± 2.8", "22.0 ± 2.8", "10", "3 / 4"]
    assert table.loc["badge"].tolist() == ["11.0 ± 1.4 ▼", "24.0 ± 1.4", "10", "3 / 4"]
    higher = rounds_of({("x", "badge"): [[25, 25], [25, 25]], ("x", "random"): [[20, 20], [24, 24]]})
    assert accuracy_table(higher).loc["badge", "5 labels"] == "25.0 ± 0.0 ▲"


def test_difference_table_by_hand():
    """Differences are paired by seed, so that what a seed gives to both cancels; the best mean over data sets comes first."""
    table = difference_table(rounds_of({
        ("x", "random"): [[10, 20], [30, 40]], ("x", "badge"): [[12, 22], [32, 42]], ("x", "cec"): [[10, 20], [34, 44]],
        ("y", "random"): [[50], [50]], ("y", "badge"): [[51], [49]], ("y", "cec"): [[46], [46]]}))
    assert table.index.tolist() == ["badge", "random", "cec"]
    assert table["x, 1%"].tolist() == ["+2.0 ± 0.0", "+0.0 ± 0.0", "+2.0 ± 2.8"]
    assert table["y, 1%"].tolist() == ["+0.0 ± 1.4", "+0.0 ± 0.0", "-4.0 ± 0.0"]
    assert table["mean"].tolist() == ["+1.00", "+0.00", "-1.00"] and table["mean rank"].tolist() == ["1.5", "2.2", "2.2"]
