"""`ACTIVE.REFILL`: a round asks other images in place of skipped ones, by files and in the page."""

import csv
from pathlib import Path

import pytest

import train
from active import verify
from active.record.results import RoundRecord, RunResult, query_hash
from dassl.data.answers import code_of, written
from tests import commands, page_runs
from tests.page_runs import NAMES, PageRun

REFILL = ("ACTIVE.REFILL", "true")


@pytest.fixture
def truth(root, tmp_path) -> dict[str, str]:
    """The class of each of thirty images in a folder."""
    return page_runs.photos(root, tmp_path / "photos")


@pytest.fixture
def said(truth) -> dict[str, str]:
    """Return people's answers: every third image is skipped, and some are of no class or unsure."""
    kinds = dict.fromkeys(sorted(truth)[::3], "!skip") | dict.fromkeys(sorted(truth)[1::9], "!none")
    return truth | kinds | dict.fromkeys(sorted(truth)[2::9], "!unsure one")


@pytest.fixture
def start(truth, tmp_path, capsys):
    """A function that gives the command of a run of three rounds of four images and returns code and standard error."""

    def call(output: str = "run", *words: str) -> tuple[int, str]:
        code = train.main(page_runs.words(tmp_path / "photos", tmp_path / output, "file", *REFILL, *words))
        return code, capsys.readouterr().err

    return call


def sheets(output: Path) -> list[Path]:
    """The sheets of a run, the newest last."""
    return sorted((output / "queries").glob("round_*.csv"), key=lambda file: file.stat().st_mtime_ns)


def paths_of(sheet: Path) -> list[str]:
    with sheet.open(newline="") as text:
        return [row["path"] for row in csv.DictReader(text)]


def fill(sheet: Path, answers: dict[str, str], *more: str) -> list[str]:
    """Answer what a sheet asks, with further lines; return what it asks."""
    paths = paths_of(sheet)
    sheet.write_text("\n".join(["path,label", *(f"{path},{answers[path]}" for path in paths), *more]))
    return paths


def labeled(start, output: Path, answers: dict[str, str], *words: str) -> RunResult:
    """Return the record of a whole run with such answers."""
    code, error = start(output.name, *words)
    while code == 3:
        fill(sheets(output)[-1], answers)
        code, error = start(output.name, *words)
    assert code == 0, error
    return RunResult.read(output / "results.json")


@pytest.mark.parametrize("sampler", ["random", "entropy", "coreset", "cec", "badge"])
def test_every_round_has_all_of_its_labels(start, said, tmp_path, sampler):
    """What is of no class or unsure was paid and is not replaced; no image is asked twice, and the sums are right."""
    result = labeled(start, tmp_path / "run", said, "ACTIVE.SAMPLER", sampler)
    asked = [path for record in result.rounds for path in record.queried]
    assert len(asked) == len(set(asked)) > 12 and [record.n_paid for record in result.rounds] == [4, 8, 12]
    for number, record in enumerate(result.rounds, start=1):
        given = [said[path] for own in result.rounds[:number] for path in own.queried]
        assert (record.n_asked, record.n_skipped) == (len(given), given.count("!skip"))
        assert record.n_labeled == sum(name in NAMES for name in given) == sum(record.class_counts)
        assert [path for part in record.parts for path in part] == record.queried and len(record.parts[0]) == 4
        for before, part in zip(record.parts, record.parts[1:], strict=False):
            assert len(part) == [said[path] for path in before].count("!skip")
        assert "!skip" not in [said[path] for path in record.parts[-1]]
        assert (tmp_path / f"run/queries/round_{record.round:03d}_part_2.csv").exists() == (len(record.parts) > 1)
    assert len(sheets(tmp_path / "run")) == sum(len(record.parts) for record in result.rounds) > 3


def test_who_only_skips_is_asked_twice_the_budget(start, truth, tmp_path):
    """8 images for the 4 labels of a round, 24 for the 12 of the run, which goes on to its end."""
    result = labeled(start, tmp_path / "run", dict.fromkeys(truth, "!skip"), "ACTIVE.AUDIT", "0")
    assert [(record.n_asked, record.n_paid, record.n_labeled) for record in result.rounds] == [
        (8, 0, 0), (16, 0, 0), (24, 0, 0)]


def test_a_small_pool_is_used_up_and_no_more(start, truth, tmp_path):
    """The run ends once nothing is left to be asked."""
    words = ("ACTIVE.QUERY_SIZE", "20", "ACTIVE.AUDIT", "0")
    answers = {path: "!skip" if place % 2 else name for place, (path, name) in enumerate(truth.items())}
    result = labeled(start, tmp_path / "run", answers, *words)
    assert [record.n_asked for record in result.rounds] == [30] and result.rounds[-1].n_paid == 15


def test_without_skips_it_is_the_run_of_before(start, truth, tmp_path):
    """Picks, numbers and hashes are the same as without the key."""
    on = labeled(start, tmp_path / "run", truth, "ACTIVE.SAMPLER", "cec")
    off = labeled(start, tmp_path / "off", truth, "ACTIVE.SAMPLER", "cec", "ACTIVE.REFILL", "false")
    assert list(verify.differences(on, off)) == [] and [record.refills for record in on.rounds] == [[], [], []]
    assert on.rounds[0].query_hash == query_hash(on.rounds[0].queried, {}, on.rounds[0].answers, on.rounds[0].audited)


def test_a_run_repeats_and_replays(start, said, tmp_path, monkeypatch):
    """`active.verify` restores every part, and the sampler `replay` asks them again."""
    old = labeled(start, tmp_path / "run", said, "ACTIVE.SAMPLER", "entropy")
    monkeypatch.setattr(verify.subprocess, "run", commands.run)
    assert verify.main([str(tmp_path / "run" / "results.json"), "--root", str(tmp_path / "photos")]) == 0
    code, error = start("replayed", "ACTIVE.SAMPLER", "replay", "ACTIVE.INITIAL_SAMPLER", "replay", "ACTIVE.REPLAY.RESULTS",
                        str(tmp_path / "run" / "results.json"), "ACTIVE.AUDIT", "0")
    assert code == 0, error
    new = RunResult.read(tmp_path / "replayed" / "results.json")
    assert [(own.queried, own.refills, own.metrics) for own in new.rounds] == [
        (own.queried, own.refills, own.metrics) for own in old.rounds]


def test_a_skip_that_is_corrected_in_the_next_part(start, truth, tmp_path, monkeypatch):
    """It counts as a label from this round on, a later round asks one less, and the run can be continued and verified."""
    start()
    skipped = fill(sheets(tmp_path / "run")[-1], truth | dict.fromkeys(sorted(truth), "!skip"))[0]
    start()
    fill(sheets(tmp_path / "run")[-1], truth, f"{skipped},{truth[skipped]}")
    start()
    (first,) = RunResult.read(tmp_path / "run" / "results.json").rounds
    n_new = len(first.queried) - 4
    assert first.answers[skipped] == "skip" and first.corrections == {skipped: NAMES.index(truth[skipped])}
    assert (first.n_paid, first.n_labeled) == (n_new + 1, n_new + 1)
    result = labeled(start, tmp_path / "run", truth)
    assert [record.n_paid for record in result.rounds][1:] == [8, 12]
    monkeypatch.setattr(verify.subprocess, "run", commands.run)
    assert verify.main([str(tmp_path / "run" / "results.json"), "--root", str(tmp_path / "photos")]) == 0


@pytest.mark.parametrize("kill_at", ["", "write:9", "before-select:2", "after-select:2"])
def test_by_the_page_it_is_the_run_by_sheets(start, said, tmp_path, kill_at):
    """They agree bit for bit, even if the run is killed in the middle of a part."""
    by_sheets = labeled(start, tmp_path / "sheets", said, "ACTIVE.SAMPLER", "entropy")
    codes = {written(code_of(own), NAMES): own for own in [*range(3), "skip", "none", "unsure 1"]}
    run = PageRun(tmp_path / "photos", tmp_path / "run", *REFILL, "ACTIVE.SAMPLER", "entropy", kill_at=kill_at)
    code = run.labeled(lambda round, path: codes[said[path]])
    if kill_at:
        assert code < 0
        run = PageRun(tmp_path / "photos", tmp_path / "run", *REFILL, "ACTIVE.SAMPLER", "entropy")
        code = run.labeled(lambda round, path: codes[said[path]])
    assert code == 0, run.errors
    result = RunResult.read(tmp_path / "run" / "results.json")
    assert list(verify.differences(result, by_sheets)) == [] and any(record.refills for record in result.rounds)


def asked(start, output: Path, *words: str) -> list[str]:
    """Give the command and return what the newest sheet then asks."""
    assert start(output.name, *words)[0] == 3
    return paths_of(sheets(output)[-1])


def is_repeated(output: Path, monkeypatch) -> bool:
    monkeypatch.setattr(verify.subprocess, "run", commands.run)
    return verify.main([str(output / "results.json"), "--root", str(output.parent / "photos")]) == 0


def test_more_rounds_do_not_change_what_rounds_asked(start, truth, tmp_path, monkeypatch):
    """A run that has asked for all that it may is continued. It then equals a run of that many rounds from the start."""
    words = ("ACTIVE.AUDIT", "0", "ACTIVE.QUERY_SIZE", "2")
    answers = dict.fromkeys(truth, "!skip")
    labeled(start, tmp_path / "run", answers, *words)
    result = labeled(start, tmp_path / "run", answers, *words, "ACTIVE.ROUNDS", "4")
    assert [record.n_asked for record in result.rounds] == [4, 8, 12, 16]
    assert is_repeated(tmp_path / "run", monkeypatch)


def test_a_correction_counts_once_the_round_is_over(start, truth, tmp_path, monkeypatch):
    """A correction between two parts of a round does not change the next part. One that is taken back there does not count."""
    output, words = tmp_path / "run", ("ACTIVE.AUDIT", "0", "ACTIVE.QUERY_SIZE", "5")
    asked(start, output, *words)
    fill(sheets(output)[-1], truth)
    first = asked(start, output, *words)
    skips, last = dict.fromkeys(first[:4], "!skip"), first[4]
    other = next(name for name in NAMES if name != truth[last])
    fill(sheets(output)[-1], truth | skips)
    second = asked(start, output, *words)
    fill(sheets(output)[-1], truth | dict.fromkeys(second[1:], "!skip"), f"{last},{other}", f"{first[2]},{truth[first[2]]}")
    third = asked(start, output, *words)
    fill(sheets(output)[-1], truth, f"{last},{truth[last]}", f"{first[1]},!none")
    result = labeled(start, output, truth, *words)
    assert (len(second), len(third)) == (4, 3) and result.rounds[1].refills == [4, 3]
    assert result.rounds[1].corrections == {first[1]: "none", first[2]: NAMES.index(truth[first[2]])}
    assert is_repeated(output, monkeypatch)


def test_corrections_are_of_the_last_part_that_people_were_asked():
    """A later part holds only images whose labels the data set knows, so people could not have corrected anything there."""
    answers, corrections = {"b": "skip", "audited": 1}, {"earlier": 2}
    record = RoundRecord(0, "random", ["a", "b", "c"], 2, 2, 0, {}, [], "", {}, 0.0, answers=answers, refills=[1],
                         corrections=corrections)
    assert record.parts == [["a", "b"], ["c"]] and record.answers_by_part == [answers | corrections, {}]


def test_a_round_has_one_sampler(start, truth, tmp_path):
    """The sampler in its record also replaces skipped images, even if the labels would give the turn to another one."""
    answers = truth | dict.fromkeys(sorted(truth)[::2], "!skip")
    schedule = ("ACTIVE.SAMPLER", "schedule", "ACTIVE.SCHEDULE.SAMPLERS", "[random,entropy]",
                "ACTIVE.SCHEDULE.STARTS", "[0,0.3]")
    found, expected = (labeled(start, tmp_path / name, answers, *words).rounds[0] for name, words in (
        ("run", schedule), ("random", ("ACTIVE.SAMPLER", "random"))))
    assert found.sampler == "random" and found.refills and found.queried == expected.queried


@pytest.mark.parametrize("word", ["label", "!skip"])
def test_a_run_with_corrected_skips_is_replayed(start, truth, tmp_path, word):
    """It holds for skips that became labels and labels that became skips. All images come again, including replacements."""
    output, words = tmp_path / "run", ("ACTIVE.AUDIT", "0")
    first = asked(start, output, *words)[0]
    before, after = ("!skip", truth[first]) if word == "label" else (truth[first], "!skip")
    fill(sheets(output)[-1], truth | {first: before})
    while not (output / "queries" / "round_001.csv").exists():
        fill(sheets(output)[-1], truth | {first: before})
        start(output.name, *words)
    fill(sheets(output)[-1], truth, f"{first},{after}")
    old = labeled(start, output, truth, *words)
    code, error = start("again", *words, "ACTIVE.SAMPLER", "replay", "ACTIVE.INITIAL_SAMPLER", "replay",
                        "ACTIVE.REPLAY.RESULTS", str(output / "results.json"))
    assert code == 0, error
    new = RunResult.read(tmp_path / "again" / "results.json")
    assert [(own.queried, own.refills) for own in new.rounds] == [(own.queried, own.refills) for own in old.rounds]
    assert new.rounds[-1].class_counts == old.rounds[-1].class_counts


def test_a_run_that_refilled_is_replayed_by_one_that_does(start, said, tmp_path):
    """Without the key, the replacement images would be left out silently."""
    labeled(start, tmp_path / "run", said)
    code, error = start("again", "ACTIVE.SAMPLER", "replay", "ACTIVE.REPLAY.RESULTS", str(tmp_path / "run" / "results.json"),
                        "ACTIVE.AUDIT", "0", "ACTIVE.REFILL", "false")
    assert code == 2 and "ACTIVE.REFILL true" in error


def test_a_sheet_that_was_followed_by_another_is_corrected_there(start, truth, tmp_path):
    """Changes in the old sheet are refused with a message that says what to do, and nothing is lost."""
    output, words = tmp_path / "run", ("ACTIVE.AUDIT", "0")
    first = asked(start, output, *words)
    before = truth | {first[0]: "!none", first[1]: "!skip"}
    fill(sheets(output)[-1], before)
    asked(start, output, *words)
    fill(output / "queries" / "round_000.csv", truth | {first[1]: "!skip"})
    code, error = start("run", *words)
    assert code == 1 and "undo what was changed in round_000.csv" in error and "row in round_000_part_2.csv corrects" in error
    fill(output / "queries" / "round_000.csv", before)
    fill(output / "queries" / "round_000_part_2.csv", truth, f"{first[0]},{truth[first[0]]}")
    assert start("run", *words)[0] == 3 and RunResult.read(output / "results.json").rounds[0].corrections.keys() == {first[0]}
