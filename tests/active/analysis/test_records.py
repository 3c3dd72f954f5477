"""Many records as tables: what is missing is listed, what must not be mixed is refused."""

import json

import pytest

from active.analysis.records import CELLS, FAILED, KEYS, load_records
from active.record.folder import move_aside
from active.record.results import RunResult
from dassl.utils.errors import DataError, UserError
from tests.active.analysis.made import write_run


def test_every_round_of_every_run_is_a_row(tmp_path):
    """Keys, metrics and the share of paid labels come from the records."""
    for seed in (1, 2):
        write_run(tmp_path / f"seed{seed}", [0.4, 0.5 + seed / 100], seed=seed)
    records = load_records([tmp_path])
    assert list(records.runs.status) == ["done", "done"] and list(records.runs.zero_shot) == [0.3, 0.3]
    assert list(records.rounds.accuracy) == [0.4, 0.51, 0.4, 0.52]
    assert list(records.rounds.share) == [0.1, 0.2, 0.1, 0.2] and records.notes == []


def test_a_label_takes_the_place_of_the_sampler(tmp_path):
    """Two variants of one sampler are two methods."""
    write_run(tmp_path / "a", [0.4], method="pcb", label="pcb over badge")
    write_run(tmp_path / "b", [0.4], method="pcb")
    assert list(load_records([tmp_path]).runs.method) == ["pcb", "pcb over badge"]


def test_a_run_that_began_with_known_labels_is_another_method(tmp_path):
    """It has more labels than it paid for. No mean mixes both kinds, or runs that began with different labels."""
    active = {"SAMPLER": "random", "QUERY_SIZE": "1%", "ROUNDS": 1}
    for seed in (1, 2):
        write_run(tmp_path / f"without {seed}", [0.4], seed=seed)
        write_run(tmp_path / f"with {seed}", [0.6], seed=seed, ACTIVE=active | {"KNOWN_LABELS": "known.csv"})
    records = load_records([tmp_path])
    assert sorted(set(records.runs.method)) == ["random", "random + known labels"]
    assert sorted(set(records.of(method="random").rounds.accuracy)) == [0.4]
    result = RunResult.read(tmp_path / "with 2" / "results.json")
    result.known = {"toy/a.png": 1}
    result.write(tmp_path / "with 2" / "results.json")
    with pytest.raises(UserError, match=r"is not a repetition of .*(\n.*)*the labels that were known before"):
        load_records([tmp_path])


def test_a_label_takes_the_place_of_the_data_set(tmp_path):
    """Two folders of images are two data sets, although both are read as ImageFolder."""
    for name, data in (("birds", "b"), ("cars", "c")):
        write_run(tmp_path / name, [0.4], dataset="ImageFolder", LABEL={"METHOD": "", "LEARNER": "", "DATASET": name},
                  certificate={"code": "c", "data": data, "weights": "w"})
    records = load_records([tmp_path])
    assert list(records.runs.dataset) == ["birds", "cars"] and records.notes == []


def test_a_combination_without_a_run_is_missing(tmp_path):
    """Without a sweep's list of cells, every combination of the data sets, methods and seeds found is expected."""
    write_run(tmp_path / "a", [0.4], method="random", seed=1)
    write_run(tmp_path / "b", [0.4], method="random", seed=2)
    write_run(tmp_path / "c", [0.4], method="badge", seed=1)
    runs = load_records([tmp_path]).runs
    assert runs[runs.status == "missing"][["method", "seed"]].values.tolist() == [["badge", 2]]


def test_cells_that_were_asked_for_are_listed_by_what_became_of_them(tmp_path):
    """done, unfinished, failed (with its reason) and missing."""
    write_run(tmp_path / "1", [0.4], seed=1)
    write_run(tmp_path / "2", [0.4], seed=2, status="running")
    keys = {"dataset": "Toy", "learner": "CoOp", "backbone": "tiny", "query_size": "1%", "method": "random"}
    cells = [keys | {"seed": seed, "folder": str(seed)} for seed in (1, 2, 3, 4)]
    (tmp_path / CELLS).write_text(json.dumps({"cells": cells}))
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / FAILED).write_text(json.dumps({"error": "the loss is NaN"}))
    runs = load_records([tmp_path]).runs
    assert list(runs.status) == ["done", "unfinished", "failed", "missing"] and runs.error[2] == "the loss is NaN"


@pytest.mark.parametrize("what", ["cell", "config", "data"])
def test_what_is_no_repetition_is_refused(tmp_path, what):
    """Row 32: one cell twice, another learning rate, or other images under one name are errors, with the difference."""
    write_run(tmp_path / "a", [0.4], seed=1)
    other = {"cell": {"seed": 1}, "config": {"seed": 2, "OPTIM": {"LR": 0.1}},
             "data": {"seed": 2, "certificate": {"code": "c", "data": "other", "weights": "w"}}}[what]
    write_run(tmp_path / "b", [0.4], **other)
    with pytest.raises(UserError, match={"cell": "same cell", "config": "OPTIM.LR", "data": "of the data"}[what]):
        load_records([tmp_path])


def test_other_code_and_other_settings_of_a_method_are_noted(tmp_path):
    """Row 32: they stay in the table, and it says so."""
    write_run(tmp_path / "a", [0.4], OPTIM={"LR": 0.1})
    write_run(tmp_path / "b", [0.4], method="badge", OPTIM={"LR": 0.2},
              certificate={"code": "other", "data": "d", "weights": "w"})
    notes = " ".join(load_records([tmp_path]).notes)
    assert "2 versions of the code" in notes and "OPTIM.LR: 0.1 -> 0.2" in notes


def test_a_reference_with_other_settings_is_noted(tmp_path):
    """Row 32: the rows `full` and zero-shot are part of every query size. Asking for other labels is not a difference."""
    write_run(tmp_path / "a", [0.4, 0.5], OPTIM={"LR": 0.1})
    write_run(tmp_path / "b", [0.4, 0.5], query_size="2%", OPTIM={"LR": 0.3})
    write_run(tmp_path / "c", [0.9], label="full", query_size="100%", OPTIM={"LR": 0.2})
    assert load_records([tmp_path]).notes == ["random at 1% and random at 2% differ in OPTIM.LR: 0.1 -> 0.3.",
                                              "random and full differ in OPTIM.LR: 0.1 -> 0.2."]


@pytest.mark.parametrize(("what", "found", "said"), [
    ("gpu", {"gpu": "A"}, "gpu A, none"), ("threads", {"threads": "2"}, "threads 1, 2"),
    ("python", {"python": "3 and 4"}, "python 3, 4")])
def test_other_environments_are_noted(tmp_path, what, found, said):
    """Row 32: this covers versions, devices and numbers of threads, also within a run that was continued elsewhere."""
    for seed in (1, 2):
        result = RunResult.read(write_run(tmp_path / str(seed), [0.4], seed=seed))
        result.environment |= {"threads": "1", "commit": str(seed)} | (found if seed == 2 else {})
        result.write(tmp_path / str(seed) / "results.json")
    assert load_records([tmp_path]).notes == [f"The runs were made with {said}."]


def test_few_shots_differ_by_seed_and_are_repetitions(tmp_path):
    """The seed draws the train split, so two seeds have different images. Runs of one seed must have the same ones."""
    for seed in (1, 2):
        write_run(tmp_path / str(seed), [0.4], seed=seed, DATASET={"NAME": "Toy", "ROOT": "data", "NUM_SHOTS": 4},
                  certificate={"code": "c", "data": f"d{seed}", "weights": "w"})
    assert load_records([tmp_path]).notes == []


@pytest.mark.parametrize("what", ["data", "weights"])
def test_methods_on_other_images_or_weights_are_noted(tmp_path, what):
    """Row 32: their numbers are not comparable, and the table says so."""
    write_run(tmp_path / "a", [0.4])
    write_run(tmp_path / "b", [0.4], method="badge", certificate={"code": "c", "data": "d", "weights": "w", what: "other"})
    assert load_records([tmp_path]).notes == [f"random and badge on Toy differ in their {what}."]


def test_runs_by_hand_beside_a_sweep_are_held_to_its_seeds(tmp_path):
    """A method that was run by hand on one of two seeds has a missing cell."""
    cells = []
    for seed in (1, 2):
        write_run(tmp_path / str(seed), [0.4], seed=seed)
        cells.append({"dataset": "Toy", "learner": "CoOp", "backbone": "tiny", "query_size": "1%", "method": "random",
                      "seed": seed, "folder": str(seed)})
    (tmp_path / CELLS).write_text(json.dumps({"cells": cells}))
    write_run(tmp_path / "hand", [0.5], method="cec")
    runs = load_records([tmp_path]).runs
    assert runs[runs.status == "missing"][["method", "seed"]].values.tolist() == [["cec", 2]]


def test_a_failure_that_has_no_keys_is_noted(tmp_path):
    """A cell whose config cannot be merged is in no table, but its reason is still reported."""
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / FAILED).write_text(json.dumps({"error": "unknown key OPTIM.LRR"}))
    with pytest.raises(DataError, match=r"OPTIM\.LRR"):
        load_records([tmp_path])
    write_run(tmp_path / "a", [0.4])
    assert "unknown key OPTIM.LRR" in " ".join(load_records([tmp_path]).notes)


def test_cells_below_the_experiment_are_asked_for_too(tmp_path):
    """A sweep's list may lie above the folder that is read. Its cells outside that folder do not count."""
    keys = {"dataset": "Toy", "learner": "CoOp", "backbone": "tiny", "query_size": "1%", "method": "random"}
    cells = [keys | {"seed": seed, "folder": f"{place}/seed{seed}"} for seed, place in ((1, "a"), (2, "a"), (3, "b"))]
    (tmp_path / CELLS).write_text(json.dumps({"cells": cells}))
    write_run(tmp_path / "a" / "seed1", [0.4], seed=1)
    assert load_records([tmp_path / "a"]).runs[["seed", "status"]].values.tolist() == [[1, "done"], [2, "missing"]]
    assert list(load_records([tmp_path / "a" / "seed1" / "results.json"]).runs.status) == ["done"]


def test_a_cell_that_was_run_elsewhere_is_not_missing(tmp_path):
    """If a cell was run by hand before the sweep reached it, the table has one row for it, not two of one seed."""
    keys = {"dataset": "Toy", "learner": "CoOp", "backbone": "tiny", "query_size": "1%", "method": "random", "seed": 1}
    (tmp_path / CELLS).write_text(json.dumps({"cells": [keys | {"folder": "swept"}]}))
    write_run(tmp_path / "hand", [0.4], seed=1)
    assert list(load_records([tmp_path]).runs.status) == ["done"]


def test_what_overwrite_has_moved_aside_is_left_out(tmp_path):
    """Its cell has been run again next to it. If it is named explicitly, it is read."""
    write_run(tmp_path / "seed1", [0.4])
    move_aside(tmp_path / "seed1")
    aside, = tmp_path.iterdir()
    write_run(tmp_path / "seed1", [0.6])
    records = load_records([tmp_path])
    assert records.rounds.accuracy.tolist() == [0.6] and len(records.runs) == 1
    assert records.notes == [f"Runs that --overwrite has moved aside are left out: 1, first {aside}."]
    assert load_records([aside]).rounds.accuracy.tolist() == [0.4]


@pytest.mark.parametrize("damage", ["cut", "edited"])
def test_a_damaged_record_is_a_cell_that_has_failed(tmp_path, damage):
    """Row 32: its reason is listed and its numbers are in no table; the other tables are made. With no keys it is a note."""
    keys = {"dataset": "Toy", "learner": "CoOp", "backbone": "tiny", "query_size": "1%", "method": "random", "seed": 2}
    write_run(tmp_path / "1", [0.4], seed=1)
    file = write_run(tmp_path / "2", [0.5], seed=2)
    file.write_text(file.read_text()[:-9] if damage == "cut" else file.read_text().replace("0.5", "0.9"))
    reason = "is not a JSON file" if damage == "cut" else "does not match its checksum"
    alone = load_records([tmp_path])
    (tmp_path / CELLS).write_text(json.dumps({"cells": [keys | {"folder": "2"}]}))
    for records in [load_records([tmp_path])] + [alone] * (damage == "edited"):
        assert list(records.runs.status) == ["done", "failed"] and reason in records.runs.error[1]
        assert records.rounds.accuracy.tolist() == [0.4]
    assert damage == "edited" or reason in " ".join(alone.notes)


def test_a_damaged_copy_of_a_run_is_no_second_cell(tmp_path):
    write_run(tmp_path / "a", [0.4])
    file = write_run(tmp_path / "b", [0.5])
    file.write_text(file.read_text().replace("0.5", "0.9"))
    records = load_records([tmp_path])
    assert list(records.runs.status) == ["done"] and "checksum" in " ".join(records.notes)


def test_a_folder_without_runs_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"no results\.json"):
        load_records([tmp_path])
    with pytest.raises(DataError, match="no such"):
        load_records([tmp_path / "absent"])


def test_records_are_cut_by_their_columns(tmp_path):
    """`of` and `repeated` select runs and rounds alike."""
    for method in ("badge", "random"):
        write_run(tmp_path / method, [0.4, 0.5], method=method)
    parts = dict(load_records([tmp_path]).repeated("method"))
    assert list(parts) == [("badge",), ("random",)]
    assert all(len(part.runs) == 1 and len(part.rounds) == 2 and set(KEYS) <= set(part.rounds) for part in parts.values())


def test_cells_without_any_record_are_still_there(tmp_path):
    """A sweep that ran nothing has its cells, and no rounds."""
    keys = {"dataset": "Toy", "learner": "CoOp", "backbone": "tiny", "query_size": "1%", "method": "random", "seed": 1}
    (tmp_path / CELLS).write_text(json.dumps({"cells": [keys | {"folder": "a"}]}))
    records = load_records([tmp_path])
    assert list(records.runs.status) == ["missing"] and list(records.runs.error) == [""]
    assert records.rounds.empty and {"round", "accuracy", "share"} <= set(records.rounds)


def test_a_run_has_the_rounds_that_were_asked_for(tmp_path):
    write_run(tmp_path / "a", [0.4], n_rounds=6, status="running")
    assert list(load_records([tmp_path]).runs.n_rounds) == [6]


@pytest.mark.parametrize("content", ['{"cells": [{"folder": "x"}]}', '{"other": 1}', "[]", "{", '{"cells": [1]}'])
def test_a_file_that_is_no_sweeps_list_is_no_obstacle_above_the_runs(tmp_path, content):
    """Some other program's `cells.json` may lie in any folder above."""
    (tmp_path / CELLS).write_text(content)
    write_run(tmp_path / "runs" / "a", [0.4])
    assert list(load_records([tmp_path / "runs"]).runs.status) == ["done"]


@pytest.mark.parametrize("content", [
    "[]", "null", "5", "", "{", '"text"', "{}", '{"error": 5}', '{"error": []}', '{"cells": 5}', '{"cells": [1]}',
    '{"cells": [{"folder": 1}]}', '{"cells": [{"folder": "a\\u0000"}]}'])
@pytest.mark.parametrize("name", [CELLS, FAILED])
def test_one_bad_file_hides_no_run(tmp_path, name, content):
    """It may be half-written, empty, or another program's. The runs are still found, and a note names the file."""
    write_run(tmp_path / "a" / "seed1", [0.4])
    (tmp_path / "a" / "seed1" / name).write_text(content)
    records = load_records([tmp_path])
    assert list(records.runs.status) == ["done"]
    assert any(str(tmp_path / "a" / "seed1" / name) in note for note in records.notes)
