"""Whole runs by the labeling page, against the same answers by sheets. Rows 9, 10, 12 and 25 of the faults table."""

import json
import signal

import pytest

from active import verify
from active.record.results import RunResult
from dassl.data.answers import code_of, written
from tests import commands
from tests.page_runs import NAMES, PageRun, by_sheets, photos


@pytest.fixture(scope="module")
def truth(root, tmp_path_factory):
    """The class of each image in `folder`."""
    return photos(root, tmp_path_factory.getbasetemp() / "photos_of_page")


@pytest.fixture(scope="module")
def folder(truth, tmp_path_factory):
    """The images."""
    return tmp_path_factory.getbasetemp() / "photos_of_page"


@pytest.fixture(scope="module")
def say(truth):
    """Return people's answers: classes, and each special answer now and then."""
    kinds = dict(zip(sorted(truth)[::4], 2 * ["skip", "none", "unsure", "unsure 1"], strict=True))
    return lambda round, path: kinds.get(path, NAMES.index(truth[path]))


@pytest.fixture(scope="module")
def sheets(folder, say, tmp_path_factory) -> RunResult:
    """Return the run by sheets."""
    return by_sheets(folder, tmp_path_factory.mktemp("page") / "sheets",
                     lambda round, paths: {path: written(code_of(say(round, path)), NAMES) for path in paths})


def is_same(one: RunResult, other: RunResult) -> bool:
    """Tell whether two records agree, apart from oracle, seconds and memory."""
    assert list(verify.differences(one, other)) == []
    configs = [own.config | {"OUTPUT_DIR": "", "ACTIVE": {key: value for key, value in own.config["ACTIVE"].items()
                                                          if key not in ("ORACLE", "PAGE", "FILE")}} for own in (one, other)]
    certificates = [{key: value for key, value in own.certificate.items() if key != "config"} for own in (one, other)]
    return configs[0] == configs[1] and certificates[0] == certificates[1] and one.environment == other.environment


def test_a_run_by_the_page_is_that_by_sheets(folder, say, sheets, tmp_path, monkeypatch):
    """They agree bit for bit, with prompts. There is one line an answer, verifying works, and a second call does nothing."""
    run = PageRun(folder, tmp_path / "run")
    assert run.labeled(say) == 0, run.errors
    record = RunResult.read(tmp_path / "run" / "results.json")
    assert is_same(record, sheets)
    lines = [line for file in sorted((tmp_path / "run" / "queries").glob("*.jsonl")) for line in file.read_text().splitlines()]
    assert len(lines) == 3 * 4 + 3 and run.said.count(run.address) == 1
    assert (tmp_path / "run" / "log.txt").read_text().count(run.address) == 1
    again = PageRun(folder, tmp_path / "run", "ACTIVE.PAGE.PORT", "1", "ACTIVE.PAGE.HOST", "0.0.0.0")
    assert again.ended() == 0 and "this run is finished" in again.said and not again.address
    monkeypatch.setattr(verify.subprocess, "run", commands.run)
    assert verify.main([str(tmp_path / "run" / "results.json"), "--root", str(folder)]) == 0


@pytest.mark.parametrize("kill_at", ["write:2", "write:5", "write:8", "write:14", "rename:3", "renamed:4", "train:2",
                                     "after-fit:1", "after-evaluate:2", "before-select:3"])
def test_a_run_killed_anywhere_ends_as_one_that_was_not(folder, say, sheets, tmp_path, kill_at):
    """Row 9: kill -9 while an answer is written, or during training or selection. No accepted answer is asked again."""
    run = PageRun(folder, tmp_path / "run", kill_at=kill_at)
    assert run.labeled(say) == -signal.SIGKILL
    taken = {line for file in (tmp_path / "run").glob("queries/*.jsonl") for line in file.read_text().splitlines()}
    run = PageRun(folder, tmp_path / "run")
    asked = set()
    for question in run.questions():
        for own in question["open"]:
            asked.add(own["name"])
            run.answer(question["round"], (own["number"], say(question["round"], own["name"]), 0))
    assert run.ended() == 0, run.errors
    assert is_same(RunResult.read(tmp_path / "run" / "results.json"), sheets)
    assert not asked & {json.loads(line)["path"] for line in taken}


def test_a_torn_answer_is_asked_again_and_a_damaged_one_named(folder, say, sheets, tmp_path):
    """Row 9: at most the answer that was being sent is lost."""
    run = PageRun(folder, tmp_path / "run")
    question = next(run.questions())
    for own in question["open"][:3]:
        run.answer(0, (own["number"], say(0, own["name"]), 0))
    run.process.kill()
    run.ended()
    journal = tmp_path / "run" / "queries" / "round_000_answers.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole.replace(b'"who"', b'"whose"', 1))
    run = PageRun(folder, tmp_path / "run")
    assert run.ended() == 1 and "round_000_answers.jsonl line 1 is damaged" in run.errors and run.errors.count("\n") == 1
    journal.write_bytes(whole[:-9])
    run = PageRun(folder, tmp_path / "run")
    assert len(next(run.questions())["open"]) == 5 and "the last line is torn and dropped" in run.said
    assert run.labeled(say) == 0
    assert is_same(RunResult.read(tmp_path / "run" / "results.json"), sheets)


def test_corrections_and_undone_answers_are_those_of_sheets(folder, truth, tmp_path):
    """A wrong label that is taken back, one that is replaced, and one of an earlier round that is corrected."""
    run, wrong = PageRun(folder, tmp_path / "run"), {}
    label = {path: NAMES.index(name) for path, name in truth.items()}
    for question in run.questions():
        round, images = question["round"], question["images"]
        for own in images[1:]:
            run.answer(round, (own["number"], (label[own["name"]] + 1) % 3, 0), who="Ann")
            seen = run.answer(round, (own["number"], None, number_of(run, own))).get("number")
            run.answer(round, (own["number"], label[own["name"]], seen))
        if round == 0:
            wrong = {own["name"]: (label[own["name"]] + 1) % 3 for own in images}
            for own in images[1:]:
                run.answer(round, (own["number"], wrong[own["name"]], number_of(run, own)))
        elif round == 1:
            for own in [own for code in range(3) for own in run.ask(f"/labeled?answer={code}") if own["name"] in wrong]:
                run.answer(round, (own["image"], label[own["name"]], own["number"]))
        run.answer(round, (images[0]["number"], wrong.get(images[0]["name"], label[images[0]["name"]]), 0))
    assert run.ended() == 0, run.errors
    record = RunResult.read(tmp_path / "run" / "results.json")
    assert len(record.rounds[1].corrections) == 7 and set(record.rounds[1].corrections) == set(wrong)

    def rows(round: int, paths: list[str]) -> dict[str, str]:
        if round == 0:
            return {path: NAMES[(label[path] + 1) % 3] for path in paths}
        return {path: truth[path] for path in [*paths, *(wrong if round == 1 else ())]}

    assert is_same(record, by_sheets(folder, tmp_path / "sheets", rows))


def test_a_label_that_was_known_is_corrected_in_the_page(folder, truth, tmp_path):
    """It works as on a sheet, even if the run is killed after the correction. The label is listed among those so far."""
    label = {path: NAMES.index(name) for path, name in truth.items()}
    path, right = min(truth), label[min(truth)]
    (tmp_path / "known.csv").write_text(f"path,label\n{path},{NAMES[(right + 1) % 3]}\n")
    words = ("ACTIVE.KNOWN_LABELS", str(tmp_path / "known.csv"))
    run = PageRun(folder, tmp_path / "run", *words)
    own = next(run.questions()) and next(own for own in run.ask(f"/labeled?answer={(right + 1) % 3}"))
    assert (own["name"], own["who"]) == (path, "")
    run.answer(0, (own["image"], right, own["number"]), who="Ann")
    run.process.kill()
    run.ended()
    run = PageRun(folder, tmp_path / "run", *words)
    assert run.labeled(lambda round, path: label[path]) == 0, run.errors
    record = RunResult.read(tmp_path / "run" / "results.json")
    assert record.rounds[0].corrections == {path: right} and record.rounds[-1].n_known == 1
    sheets = by_sheets(folder, tmp_path / "sheets", lambda round, paths: {own: truth[own] for own in [
        *paths, *([path] if round == 0 else [])]}, *words)
    assert is_same(record, sheets)


def test_a_finished_run_is_given_a_round_in_which_labels_are_corrected(folder, truth, tmp_path):
    """The page says at the end that this is possible."""
    label = {path: NAMES.index(name) for path, name in truth.items()}
    run = PageRun(folder, tmp_path / "run")
    assert run.labeled(lambda round, path: (label[path] + (round == 0)) % 3) == 0, run.errors
    run = PageRun(folder, tmp_path / "run", "ACTIVE.ROUNDS", "4")
    question = next(run.questions())
    wrong = [own for code in range(3) for own in run.ask(f"/labeled?answer={code}") if label[own["name"]] != code]
    run.answer(question["round"], *((own["image"], label[own["name"]], own["number"]) for own in wrong))
    assert run.labeled(lambda round, path: label[path]) == 0, run.errors
    rounds = RunResult.read(tmp_path / "run" / "results.json").rounds
    assert rounds[3].corrections == {path: label[path] for path in rounds[0].answers} and len(rounds) == 4


def number_of(run: PageRun, image: dict) -> int:
    return next(own["number"] for own in run.ask("/state?since=-1")["answers"] if own["image"] == image["number"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_stops_and_the_same_command_opens_where_it_was(folder, say, sheets, tmp_path, number, code):
    """Row 10: Ctrl-C comes while the run waits for people. An open page is told."""
    run = PageRun(folder, tmp_path / "run")
    question = next(run.questions())
    run.answer(0, *((own["number"], say(0, own["name"]), 0) for own in question["open"][:2]))
    run.process.send_signal(number)
    state = {"doing": {"kind": ""}, "number": -1}
    for _ in range(9):
        if state["doing"]["kind"] == "ended":
            break
        state = run.ask(f"/state?since={state['number']}")
    assert state["doing"] == {"kind": "ended", "text": "the run was stopped; the same command goes on where it was"}
    assert run.ended() == code and "goes on after the last finished round" in run.errors and "Traceback" not in run.errors
    assert "round 0: the answers to 2 of 7 images are kept" in run.said
    run = PageRun(folder, tmp_path / "run")
    assert len(next(run.questions())["open"]) == len(question["open"]) - 2
    assert run.labeled(say) == 0
    assert is_same(RunResult.read(tmp_path / "run" / "results.json"), sheets)


def test_a_second_run_in_the_folder_is_refused_and_the_first_goes_on(folder, tmp_path):
    """Row 12: the answers belong to one process."""
    run = PageRun(folder, tmp_path / "run")
    second = PageRun(folder, tmp_path / "run")
    assert second.ended() == 1 and "another process is at work" in second.errors
    assert run.ask("/about")["classes"] == list(NAMES)
    run.process.kill()
    run.ended()


def test_what_the_run_does_is_told_without_a_reload(folder, say, tmp_path):
    """Epochs of training, rounds, paid labels, the audit's result, and the end are shown."""
    run = PageRun(folder, tmp_path / "run", "OPTIM.MAX_EPOCH", "40")
    told, since = [], -1
    questions = {}
    while True:
        state = run.ask(f"/state?since={since}")
        since = state["number"]
        told.append(state)
        if state["doing"]["kind"] == "ended":
            break
        if (round := state["round"]) is not None and round not in questions:
            questions[round] = run.ask("/question")
            run.answer(round, *((own["number"], say(round, own["name"]), 0) for own in questions[round]["images"]))
    assert run.ended() == 0, run.errors
    texts = {state["doing"]["text"] for state in told}
    assert "the run has finished" in texts and "round 0: training" in texts
    assert any(state["doing"].get("total") == 40 and state["doing"]["done"] == 40 for state in told)
    record, last = RunResult.read(tmp_path / "run" / "results.json"), told[-1]
    assert (last["n_paid"], last["counts"]) == (record.rounds[-1].n_paid, record.rounds[-1].class_counts)
    assert [own["audit"] for own in last["curve"]] == [own.audit or None for own in record.rounds]
    assert "of new images like these are labeled right" in last["audit"] and "points" in last["advice"]


def test_a_page_for_other_machines_warns(folder, tmp_path):
    """It accepts addresses as host, but not other names."""
    run = PageRun(folder, tmp_path / "run", "ACTIVE.PAGE.HOST", "0.0.0.0")
    run.base = f"http://127.0.0.1:{run.base.rpartition(':')[2]}"
    assert run.ask("/about")["dataset"] == "ImageFolder"
    run.process.kill()
    run.ended()
    assert "the labeling page is open to every machine that reaches 0.0.0.0" in run.said and "not encrypted" in run.said


def test_a_port_that_is_taken_is_one_line(folder, tmp_path):
    run = PageRun(folder, tmp_path / "run")
    port = run.base.rpartition(":")[2]
    other = PageRun(folder, tmp_path / "other", "ACTIVE.PAGE.PORT", port)
    assert other.ended() == 1 and f"cannot listen at 127.0.0.1, port {port}" in other.errors and other.errors.count("\n") == 1
    run.process.kill()
    run.ended()
    again = PageRun(folder, tmp_path / "run", "ACTIVE.PAGE.PORT", port)  # at once, after a kill
    assert again.base.endswith(f":{port}")
    again.process.kill()
    again.ended()
