"""What people say besides a class: skip, none of these, unsure, and corrections. Through the files of a run."""

import csv
import json
import random
from pathlib import Path

import pytest

import train
from active import verify
from active.oracles.files import majority
from active.record.results import RunResult
from dassl.data.answers import words
from dassl.data.known import Known
from tests import commands, page_runs
from tests.active.toy import cut_back
from tests.page_runs import NAMES

WORDS = {"skip": "!skip", "none": "!none", "unsure": "!unsure"}


@pytest.fixture
def truth(root, tmp_path) -> dict[str, str]:
    """The class of each image in the folder."""
    return page_runs.photos(root, tmp_path / "photos", 8)


@pytest.fixture
def photos(truth, tmp_path) -> Path:
    """Eight images of each of three digits in one folder, and a file of class names."""
    return tmp_path / "photos"


@pytest.fixture
def start(photos, tmp_path, capsys):
    """A function that gives the command of a run (three rounds of four images) and returns code and standard error."""

    def call(*words: str, output: str = "run") -> tuple[int, str]:
        code = train.main(["--config-file", "configs/quickstart.yaml", "--root", str(photos), "--output-dir",
                           str(tmp_path / output), "DATASET.NAME", "ImageFolder", "DATASET.IMAGEFOLDER.CLASSES", "classes.txt",
                           "ACTIVE.ORACLE", "file", "ACTIVE.ROUNDS", "3", "ACTIVE.QUERY_SIZE", "4", "OPTIM.MAX_EPOCH", "3",
                           *words])
        return code, capsys.readouterr().err

    return call


def sheet(tmp_path: Path, round: int, output: str = "run") -> Path:
    return tmp_path / output / "queries" / f"round_{round:03d}.csv"


def asked(file: Path) -> list[str]:
    with file.open(newline="") as text:
        return list(dict.fromkeys(row["path"] for row in csv.DictReader(text)))


def fill(file: Path, labels: dict[str, str], *more: str) -> list[str]:
    """Write answers and further lines into the file and return the images it asks for."""
    paths = asked(file)
    file.write_text("\n".join(["path,label", *(f"{path},{labels[path]}" for path in paths), *more]))
    return paths


def rounds(tmp_path: Path, output: str = "run") -> list:
    return RunResult.read(tmp_path / output / "results.json").rounds


def labeled(start, tmp_path, answers: dict[str, str], *words: str, output: str = "run") -> list[str]:
    """Do a whole run with such answers, and return all that was asked."""
    code, error = start(*words, output=output)
    for round in range(3):
        assert code == 3, error
        fill(sheet(tmp_path, round, output), answers)
        code, error = start(*words, output=output)
    assert code == 0, error
    return [path for record in rounds(tmp_path, output) for path in record.queried]


@pytest.mark.parametrize("word", WORDS.values())
def test_images_that_nobody_can_label_stop_no_run(start, truth, tmp_path, word):
    """Every answer is such a word. There are three rounds of zero-shot CLIP, and no image is asked twice."""
    seen = labeled(start, tmp_path, dict.fromkeys(truth, word))
    assert len(seen) == len(set(seen)) == 12
    last = rounds(tmp_path)[-1]
    assert (last.n_labeled, last.n_asked, sum(last.class_counts)) == (0, 12, 0)
    assert last.n_paid == (0 if word == "!skip" else 12)


@pytest.mark.parametrize("sampler", ["coreset", "entropy", "alfa_mix", "cec", "typiclust", "badge"])
def test_what_each_answer_does(start, truth, tmp_path, capsys, sampler):
    """Asked = labels + skips + none + unsure. Only labels are trained on, charges are right, and nothing is asked again."""
    answers = {path: (name, "!skip", "!none", "!unsure", f"!unsure {NAMES[0]}")[place % 5]
               for place, (path, name) in enumerate(truth.items())}
    seen = labeled(start, tmp_path, answers, "ACTIVE.SAMPLER", sampler)
    assert len(seen) == len(set(seen)) == 12
    for number, record in enumerate(rounds(tmp_path), start=1):
        given = [answers[path] for path in seen[: 4 * number]]
        counts = {word: sum(own.startswith(word) for own in given) for word in WORDS.values()}
        assert (record.n_asked, record.n_skipped, record.n_none, record.n_unsure) == (4 * number, *counts.values())
        assert record.n_paid == 4 * number - counts["!skip"]
        assert record.n_labeled == 4 * number - sum(counts.values()) == sum(record.class_counts)
        assert record.class_counts == [given.count(name) for name in NAMES]
    start("ACTIVE.SAMPLER", sampler)


def test_a_table_and_a_record_say_them(start, truth, tmp_path, capsys):
    """They are in the order of the run. A run without them has the old columns."""
    answers = dict(zip(truth, ["!skip", "!none", "!unsure", "!unsure one"] * 6, strict=True))
    start()
    paths = fill(sheet(tmp_path, 0), answers)
    start()
    record = json.loads((tmp_path / "run" / "results.json").read_text())["rounds"][0]
    said = {"!skip": "skip", "!none": "none", "!unsure": "unsure", "!unsure one": "unsure 1"}
    assert record["answers"] == {path: said[answers[path]] for path in paths}
    fill(sheet(tmp_path, 1), truth)
    start()
    fill(sheet(tmp_path, 2), truth)
    train.main(["--config-file", "configs/quickstart.yaml", "--root", str(tmp_path / "photos"), "--output-dir",
                str(tmp_path / "run"), "DATASET.NAME", "ImageFolder", "DATASET.IMAGEFOLDER.CLASSES", "classes.txt",
                "ACTIVE.ORACLE", "file", "ACTIVE.ROUNDS", "3", "ACTIVE.QUERY_SIZE", "4", "OPTIM.MAX_EPOCH", "3"])
    assert "skipped    none    unsure" in capsys.readouterr().out


def test_the_sheet_says_what_may_be_written(start, tmp_path):
    """It does so in its head, next to the columns that are read, and on the page of images."""
    start()
    head = sheet(tmp_path, 0).read_text().splitlines()[0]
    assert head.endswith('"label: a class name, or !skip, !none, !unsure"')
    assert "!skip" in sheet(tmp_path, 0).with_suffix(".html").read_text()


@pytest.mark.parametrize("name", ["!skip", "!Unsure", "!unsure one", "!NONE"])
def test_a_class_cannot_be_called_so(start, photos, name):
    """One line says so before anybody is asked."""
    (photos / "classes.txt").write_text("\n".join([*NAMES, name]))
    code, error = start()
    assert code == 1 and "is a word that people may answer with" in error and error.count("\n") == 1


def test_the_order_of_answers_in_a_file_is_irrelevant(start, truth, tmp_path):
    """This includes special answers and corrections."""
    answers = {path: name if place % 3 else "!skip" for place, (path, name) in enumerate(truth.items())}
    labeled(start, tmp_path, answers)
    for round in range(3):
        code, error = start(output="other")
        assert code == 3, error
        lines = sheet(tmp_path, round).read_text().splitlines()
        random.Random(round).shuffle(body := lines[1:])
        sheet(tmp_path, round, "other").write_text("\n".join([lines[0], *body]))
    assert start(output="other")[0] == 0
    one, two = ([(own.queried, own.n_labeled, own.metrics, own.class_counts) for own in rounds(tmp_path, output)]
                for output in ("run", "other"))
    assert one == two


def test_the_order_of_corrections_is_none_of_a_record(start, truth, tmp_path):
    """Two sheets of the same rows in another order give the same hash of the round."""
    hashes = []
    for output, step in (("run", 1), ("other", -1)):
        start(output=output)
        wrong = {path: NAMES[(NAMES.index(name) + 1) % 3] for path, name in truth.items()}
        first = fill(sheet(tmp_path, 0, output), wrong)
        start(output=output)
        fill(sheet(tmp_path, 1, output), truth, *(f"{path},{truth[path]}" for path in first[::step]))
        start(output=output)
        hashes.append([record.query_hash for record in rounds(tmp_path, output)])
    assert len(hashes[0]) == 2 and hashes[0] == hashes[1]


def test_a_correction_is_trained_on_from_the_next_round_on(start, truth, tmp_path):
    """It is not charged, earlier picks stay, and the run equals one in which the label was right from that round on."""
    start()
    wrong = {path: NAMES[(NAMES.index(name) + 1) % 3] for path, name in truth.items()}
    first = fill(sheet(tmp_path, 0), wrong)
    start()
    fill(sheet(tmp_path, 1), truth, *(f"{path},{truth[path]}" for path in first))
    start()
    fill(sheet(tmp_path, 2), truth)
    assert start()[0] == 0
    before, now, last = rounds(tmp_path)
    assert before.answers == {path: NAMES.index(wrong[path]) for path in first} and not before.corrections
    assert now.corrections == {path: NAMES.index(truth[path]) for path in first}
    assert now.queried == list(now.answers) and (last.n_paid, last.n_asked) == (12, 12)
    names = [truth[path] for record in (before, now, last) for path in record.queried]
    assert last.class_counts == [names.count(name) for name in NAMES]


def test_a_correction_to_the_same_label_changes_nothing(start, truth, tmp_path):
    """It may happen that a person writes all earlier rows again."""
    for output, again in (("run", False), ("other", True)):
        paths: list[str] = []
        code, _ = start(output=output)
        for round in range(3):
            assert code == 3
            paths += fill(sheet(tmp_path, round, output), truth, *(f"{path},{truth[path]}" for path in paths if again))
            code, error = start(output=output)
        assert code == 0, error
    one, two = ([(own.queried, own.metrics, own.query_hash, own.corrections) for own in rounds(tmp_path, output)]
                for output in ("run", "other"))
    assert one == two


@pytest.mark.parametrize("learner", ["CoOp", "LinearProbe", "DualPrompt"])
def test_half_a_label_of_what_people_were_unsure_of(start, truth, tmp_path, learner, capsys):
    """`ACTIVE.UNSURE half`: it is trained on, and samplers see it as labeled. A whole label or none gives another model."""
    words, models = ("TRAINER.NAME", learner, "ACTIVE.SAMPLER", "cec"), {}
    unsure = {path: f"!unsure {name}" if place % 3 else "!unsure" for place, (path, name) in enumerate(truth.items())}
    for output, answers, more in (("none", unsure, ()), ("half", unsure, ("ACTIVE.UNSURE", "half")), ("whole", truth, ())):
        labeled(start, tmp_path, answers, *words, *more, output=output)
        models[output] = [own.files for own in rounds(tmp_path, output)]
    none, half, whole = (rounds(tmp_path, output)[0] for output in ("none", "half", "whole"))
    named = [path for path in half.queried if unsure[path] != "!unsure"]
    assert (none.n_labeled, half.n_labeled, whole.n_labeled) == (0, len(named), 4) and 0 < len(named) < 4
    assert half.n_unsure == half.n_paid == 4
    assert half.class_counts == [sum(truth[path] == name for path in named) for name in NAMES]
    assert len({json.dumps(own) for own in models.values()}) == 3
    assert start(*words, "ACTIVE.UNSURE", "half", output="half")[0] == 0  # a finished one


@pytest.mark.parametrize(("first", "then", "n_paid", "n_labeled"), [
    ("!skip", "one", 8, 8), ("!none", "one", 8, 8), ("one", "!none", 8, 7), ("one", "!skip", 7, 7), ("!unsure", "one", 8, 8)])
def test_any_answer_can_be_corrected(start, truth, tmp_path, first, then, n_paid, n_labeled):
    """Labels and charges follow the last answer."""
    start()
    path = fill(sheet(tmp_path, 0), truth | dict.fromkeys(asked(sheet(tmp_path, 0))[:1], first))[0]
    start()
    fill(sheet(tmp_path, 1), truth, f"{path},{then}")
    start()
    record = rounds(tmp_path)[-1]
    assert (record.n_asked, record.n_paid, record.n_labeled) == (8, n_paid, n_labeled)
    code, error = start()  # continued: the same
    assert code == 3 and not error.count("Traceback")


def test_an_image_that_was_never_asked_cannot_be_corrected(start, truth, tmp_path):
    start()
    never = next(path for path in truth if path not in asked(sheet(tmp_path, 0)))
    fill(sheet(tmp_path, 0), truth, f"{never},one")
    code, error = start()
    assert code == 1 and f"was not asked: {never}" in error


def test_a_run_with_all_answers_repeats_and_replays(start, truth, tmp_path, monkeypatch):
    """`active.verify` and the sampler `replay` restore every kind of answer, corrections too."""
    monkeypatch.setattr(verify.subprocess, "run", commands.run)
    kinds = ["!skip", "!none", "!unsure one"]
    start()
    first = fill(sheet(tmp_path, 0), {path: kinds[place % 3] for place, path in enumerate(truth)})
    start()
    fill(sheet(tmp_path, 1), truth, f"{first[0]},{truth[first[0]]}")
    start()
    fill(sheet(tmp_path, 2), truth)
    assert start()[0] == 0
    old = RunResult.read(tmp_path / "run" / "results.json")
    (tmp_path / "again").mkdir()
    again = verify.run_again(old, tmp_path / "again", str(tmp_path / "photos"), fresh=False)
    alike = [[(own.queried, own.answers, own.corrections, own.n_paid, own.metrics) for own in result.rounds]
             for result in (old, again)]
    assert alike[0] == alike[1]
    code, error = start("ACTIVE.SAMPLER", "replay", "ACTIVE.REPLAY.RESULTS", str(tmp_path / "run" / "results.json"),
                        "ACTIVE.INITIAL_SAMPLER", "replay", output="replayed")
    assert code == 0, error
    assert [own.queried for own in rounds(tmp_path, "replayed")] == [own.queried for own in old.rounds]
    last, was = rounds(tmp_path, "replayed")[-1], old.rounds[-1]
    assert (last.n_skipped, last.n_none, last.n_unsure, last.class_counts) == (
        was.n_skipped, was.n_none, was.n_unsure, was.class_counts)
    assert last.metrics == was.metrics


def test_a_damaged_answer_in_a_record_is_noticed(start, truth, tmp_path):
    """An unknown word is found, even if the file's own hashes were recomputed."""
    start()
    fill(sheet(tmp_path, 0), dict.fromkeys(truth, "!skip"))
    start()
    result = RunResult.read(tmp_path / "run" / "results.json")
    answers = result.rounds[0].answers
    answers[next(iter(answers))] = "maybe"
    result.write(tmp_path / "run" / "results.json")
    code, error = start()
    assert code == 1 and "'maybe' is not an answer" in error


def test_skips_of_an_export_and_labels_of_a_sheet(start, truth, tmp_path):
    """Label Studio's skipped tasks are skips, unless somebody else has labeled the image."""
    start()
    paths = asked(sheet(tmp_path, 0))
    skip = {"id": 1, "was_cancelled": True, "result": []}
    export = [{"id": number, "data": {"path": path}, "annotations": [skip]} for number, path in enumerate(paths)]
    (sheet(tmp_path, 0).parent / "round_000_export.json").write_text(json.dumps(export))
    sheet(tmp_path, 0).write_text(f"path,label\n{paths[0]},{truth[paths[0]]}\n")
    assert start()[0] == 3
    assert rounds(tmp_path)[0].answers == {path: NAMES.index(truth[path]) if path == paths[0] else "skip" for path in paths}


KNOWN = Known(["a.jpg", "b.jpg"], ["heron", "magpie"], words(["heron", "magpie"]))


@pytest.mark.parametrize(("names", "expected"), [
    (["heron"], "heron"), (["heron", "heron"], "heron"), (["heron", "magpie"], ""), (["Heron", "magpie", "heron"], "heron"),
    (["heron", "magpie", "!none"], "!unsure"), (["heron", "magpie", "heron", "magpie"], "!unsure"),
    (["!none", "!none", "magpie"], "!none"), (["heron", ""], "heron")])
def test_most_opinions_decide(names, expected):
    """Their order does not matter, and blank cells do not count."""
    for order in (names, names[::-1]):
        rows, n_further, undecided = majority([("row", "a.jpg", name) for name in order], KNOWN, {"a.jpg"})
        found = {name for _, _, name in rows if name}
        assert found == ({expected} if expected else set()) and undecided == ([] if expected else ["a.jpg"])
        assert n_further == len([*filter(None, names)]) - 1


def test_what_means_nothing_stays_to_be_listed():
    """An unknown class, and an image that was not asked."""
    rows, n_further, _ = majority([("1", "a.jpg", "crow"), ("2", "x.jpg", "heron"), ("3", "b.jpg", "heron")], KNOWN, {"a.jpg"})
    assert ("1", "a.jpg", "crow") in rows and ("2", "x.jpg", "heron") in rows and n_further == 0


def test_second_opinions_are_paid_and_a_third_decides(start, truth, tmp_path):
    """The run waits while two opinions differ. Its record counts opinions, even if the run is continued."""
    words = ("ACTIVE.FILE.CONFLICTS", "majority")
    start(*words)
    paths = asked(sheet(tmp_path, 0))
    other = next(name for name in NAMES if name != truth[paths[0]])
    fill(sheet(tmp_path, 0), truth, f"{paths[0]},{other}", f"{paths[1]},{truth[paths[1]]}")
    code, error = start(*words)
    assert code == 3 and "1 of 4 images wait" in error
    fill(sheet(tmp_path, 0), truth, f"{paths[0]},{other}", f"{paths[1]},{truth[paths[1]]}", f"{paths[0]},{truth[paths[0]]}")
    assert start(*words)[0] == 3
    record = rounds(tmp_path)[0]
    assert record.answers == {path: NAMES.index(truth[path]) for path in paths}
    assert (record.n_asked, record.n_paid, record.n_further, record.n_labeled) == (4, 7, 3, 4)
    fill(sheet(tmp_path, 1), truth)
    start(*words)
    assert (rounds(tmp_path)[1].n_paid, rounds(tmp_path)[1].n_further) == (11, 3)


def test_opinions_that_differ_are_an_error_unless_most_decide(start, truth, tmp_path):
    start()
    path = asked(sheet(tmp_path, 0))[0]
    fill(sheet(tmp_path, 0), truth, f"{path},{next(name for name in NAMES if name != truth[path])}")
    code, error = start()
    assert code == 1 and f"{path} is both" in error


def test_skips_and_the_audit_cost_no_opinion(start, truth, tmp_path):
    """Three skips of one image are one skip; a second label of an audited image is not one of the query's; it repeats."""
    words = ("ACTIVE.FILE.CONFLICTS", "majority", "ACTIVE.AUDIT", "2")
    start(*words)
    paths = asked(sheet(tmp_path, 0))
    query = json.loads((sheet(tmp_path, 0).parent / "round_000_query.json").read_text())["queried"]
    audited = next(path for path in paths if path not in query)
    lines = [f"{query[0]},!Skip"] * 3 + [f"{path},{truth[path]}" for path in paths if path != query[0]]
    lines += [f"{query[1]},{truth[query[1]]}", f"{audited},{truth[audited]}"]
    sheet(tmp_path, 0).write_text("\n".join(["path,label", *lines]))
    assert start(*words)[0] == 3
    record = rounds(tmp_path)[0]
    assert (record.n_asked, record.n_skipped, record.n_paid, record.n_further) == (4, 1, 4, 1)


def test_corrections_that_differ_wait_for_a_third(start, truth, tmp_path):
    """They are not ignored."""
    words = ("ACTIVE.FILE.CONFLICTS", "majority")
    start(*words)
    first = fill(sheet(tmp_path, 0), truth)[0]
    start(*words)
    others = [name for name in NAMES if name != truth[first]]
    fill(sheet(tmp_path, 1), truth, *(f"{first},{name}" for name in others))
    code, error = start(*words)
    assert code == 3 and f"first {first}" in error


def test_second_opinions_repeat(start, truth, tmp_path, monkeypatch):
    """`active.verify` finds such a run equal."""
    monkeypatch.setattr(verify.subprocess, "run", commands.run)
    words = ("ACTIVE.FILE.CONFLICTS", "majority")
    start(*words)
    for round in range(3):
        paths = asked(sheet(tmp_path, round))
        fill(sheet(tmp_path, round), truth, f"{paths[0]},{truth[paths[0]]}")
        code, error = start(*words)
    assert code == 0, error
    old = RunResult.read(tmp_path / "run" / "results.json")
    assert old.rounds[-1].n_further == 3
    (tmp_path / "again").mkdir()
    again = verify.run_again(old, tmp_path / "again", str(tmp_path / "photos"), fresh=False)
    assert list(verify.differences(old, again)) == []


def test_a_label_and_a_skip_in_any_spelling(start, truth, tmp_path):
    """The person who can label the image decides."""
    start()
    path = asked(sheet(tmp_path, 0))[0]
    fill(sheet(tmp_path, 0), truth, f"./{path},!Skip")
    assert start()[0] == 3 and rounds(tmp_path)[0].answers[path] == NAMES.index(truth[path])


def test_answers_live_on_in_a_run_that_repeats_them(start, truth, tmp_path):
    """Its own record holds them, so they are shown in predictions, carried over, and kept after a stop."""
    start()
    for round in range(3):
        fill(sheet(tmp_path, round), {path: name if place % 3 else "!none" for place, (path, name) in enumerate(truth.items())})
        code, error = start()
    assert code == 0, error
    replay = ("ACTIVE.SAMPLER", "replay", "ACTIVE.REPLAY.RESULTS", str(tmp_path / "run" / "results.json"))
    assert start(*replay, output="again")[0] == 0
    answers, again = ([own.answers for own in rounds(tmp_path, output)] for output in ("run", "again"))
    assert again == answers
    cut_back(tmp_path / "again" / "results.json", 1)
    assert start(*replay, output="again")[0] == 0 and [own.answers for own in rounds(tmp_path, "again")] == answers


def test_an_audit_does_not_take_what_a_record_asked(start, truth, tmp_path):
    """One line before anybody is asked."""
    start()
    for round in range(3):
        fill(sheet(tmp_path, round), truth)
        start()
    code, error = start("ACTIVE.SAMPLER", "replay", "ACTIVE.REPLAY.RESULTS", str(tmp_path / "run" / "results.json"),
                        "ACTIVE.AUDIT", "4", "SEED", "3", output="again")
    assert code == 2 and "the audit sets images aside that the record asked for" in error
