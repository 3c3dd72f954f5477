"""People as oracle: a folder of images without labels, labeled round by round through files. Row 25 of the faults table."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import pytest

import active.asking
import active.loop
import train
from active import verify
from active.analysis.picks import recorded_dataset
from active.record.results import RunResult
from dassl.data import digests
from datasets import check
from datasets.digits import CLASSNAMES, digits
from tests import commands

PROJECT = Path(__file__).parents[1]
NAMES = CLASSNAMES[:3]
BEFORE = PROJECT / "tests" / "files" / "before" / "people"  # written by commit 2dbb33f


@pytest.fixture(scope="module")
def source(root) -> Path:
    """The digits, as folders by class."""
    digits(root)
    return root / "digits" / "images"


@pytest.fixture(autouse=True)
def forks(monkeypatch):
    """Repeat runs in forks."""
    monkeypatch.setattr(verify.subprocess, "run", commands.run)


@pytest.fixture
def photos(source, tmp_path) -> Path:
    """Thirty images in one folder, ten a class, and a file of class names. The classes of the images are written nowhere."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        for file in sorted((source / name).iterdir())[:10]:
            shutil.copy(file, folder)
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


@pytest.fixture
def truth(source) -> dict[str, str]:
    return {file.name: name for name in NAMES for file in sorted((source / name).iterdir())[:10]}


@pytest.fixture
def start(photos, tmp_path, capsys):
    """A function that gives the command of the run (two rounds of four labels) and returns code and standard error."""

    def call(*words: str, output: str = "run") -> tuple[int, str]:
        code = train.main(["--config-file", "configs/quickstart.yaml", "--root", str(photos), "--output-dir",
                           str(tmp_path / output), "DATASET.NAME", "ImageFolder", "DATASET.IMAGEFOLDER.CLASSES", "classes.txt",
                           "ACTIVE.ORACLE", "file", "ACTIVE.ROUNDS", "2", "ACTIVE.QUERY_SIZE", "4", "OPTIM.MAX_EPOCH", "3",
                           *words])
        return code, capsys.readouterr().err

    return call


def table(tmp_path: Path, round: int) -> Path:
    return tmp_path / "run" / "queries" / f"round_{round:03d}.csv"


def asked(file: Path) -> list[str]:
    with file.open(newline="") as text:
        return [row["path"] for row in csv.DictReader(text)]


def fill(file: Path, labels: dict[str, str]) -> list[str]:
    """Write the known labels into the file and return the images it asks for."""
    paths = asked(file)
    lines = ["path,label", *(f"{path},{labels.get(path, '')}" for path in paths)]
    file.write_text("\n".join(lines))
    return paths


def record(tmp_path: Path, output: str = "run") -> dict:
    return json.loads((tmp_path / output / "results.json").read_text())


def test_a_folder_without_labels_is_labeled_by_people_to_the_end(start, truth, tmp_path, capsys):
    """Three calls of one command: two stop with a query and exit code 3; the last gives the whole record, without accuracy."""
    questions = []
    for round in range(2):
        code, err = start()
        assert code == 3 and str(table(tmp_path, round)) in err and "same command" in err and err.count("\n") == 1
        questions.append(fill(table(tmp_path, round), truth))
    assert start()[0] == 0
    rounds = record(tmp_path)["rounds"]
    assert [round["queried"] for round in rounds] == questions
    assert len({path for question in questions for path in question}) == 8
    for round in rounds:
        assert round["answers"] == {path: NAMES.index(truth[path]) for path in round["queried"]}
        assert round["metrics"] == {"accuracy": None, "macro_f1": None, "ece": None}
    assert rounds[1]["n_paid"] == 8 and sum(rounds[1]["class_counts"]) == 8
    assert record(tmp_path)["zero_shot"] == {"accuracy": None}
    assert not (tmp_path / "run" / "learning_curve.png").exists()


def test_the_table_of_a_run_without_test_images_shows_dashes(start, truth, tmp_path, capsys):
    """A metric that cannot be computed is shown as "-", not 0 or an empty cell."""
    for round in range(2):
        start()
        fill(table(tmp_path, round), truth)
    code = train.main(["--config-file", "configs/quickstart.yaml", "--root", str(tmp_path / "photos"), "--output-dir",
                       str(tmp_path / "run"), "DATASET.NAME", "ImageFolder", "DATASET.IMAGEFOLDER.CLASSES", "classes.txt",
                       "ACTIVE.ORACLE", "file", "ACTIVE.ROUNDS", "2", "ACTIVE.QUERY_SIZE", "4", "OPTIM.MAX_EPOCH", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [line.split()[3:6] for line in lines if "coreset" in line and line[0] == "1"] == [["-", "-", "-"]]
    assert not [line for line in lines if "accuracy -" in line] and "round 1: coreset, 8 labels (" in "\n".join(lines)


def test_a_question_is_written_once_and_filled_labels_stay(start, truth, tmp_path):
    """A restart before or during labeling changes no file of the query."""
    start()
    first = asked(table(tmp_path, 0))
    fill(table(tmp_path, 0), {first[0]: truth[first[0]]})
    before = {path: path.read_bytes() for path in table(tmp_path, 0).parent.iterdir()}
    code, err = start()
    assert code == 3 and "3 of 4 images wait" in err and first[1] in err
    assert {path: path.read_bytes() for path in table(tmp_path, 0).parent.iterdir()} == before


def test_the_contact_sheet_needs_nothing_else(start, tmp_path):
    """It is one page that embeds each image with its path and three guesses, without scripts or addresses."""
    start()
    page = table(tmp_path, 0).with_suffix(".html").read_text()
    assert page.count("data:image/jpeg;base64,") == page.count("<img") == 4
    assert all(path in page for path in asked(table(tmp_path, 0)))
    assert page.count("<li>") == 12
    assert not re.search(r"https?:|<script|<link|url\(", page)


def spoiled(paths: list[str]) -> str:
    return "\n".join(["path,label", f"{paths[0]},zero", f"{paths[0]},one", f"{paths[1]},Zeroo", "nowhere.png,zero",
                      f"{paths[2]},", f"{paths[3]},two"])


def test_all_faults_of_an_answer_are_one_error_and_nothing_of_it_counts(start, tmp_path):
    """Row 25: two answers for one image, an unknown class, and an image not asked are listed together; the run waits."""
    start()
    table(tmp_path, 0).write_text(spoiled(asked(table(tmp_path, 0))))
    code, err = start()
    first = re.search(r"row 3: (\S+) is both", err)[1]
    assert code == 1 and "3 labels are wrong" in err and f"{first},one" in table(tmp_path, 0).read_text()
    for part in (f"row 3: {first} is both 'zero' and 'one'", "row 4: unknown class 'Zeroo'; did you mean 'zero'?",
                 "row 5: was not asked: nowhere.png"):
        assert part in err, err
    assert record(tmp_path)["rounds"] == []


@pytest.mark.parametrize("text", ["\ufeffpath;label\r\n{};zero\r\n{};one\r\n{};two\r\n{};zero\r\n",
                                  "label\tpath\nzero\t{}\none\t{}\ntwo\t{}\n zero \t{}",
                                  '"path","label"\n"{}","zero"\n"{}","one"\n{},two\n{},zero\n{0},\n{0},zero\n'])
def test_what_spreadsheets_write_is_read(start, tmp_path, text):
    """Row 25: byte-order mark, semicolons, tabs, CRLF, quotes, another order of columns, and a repeated row."""
    start()
    paths = asked(table(tmp_path, 0))
    text = text.replace("{0}", paths[0])
    for path in paths:
        text = text.replace("{}", path, 1)
    table(tmp_path, 0).write_bytes(text.encode())
    assert start()[0] == 3 and table(tmp_path, 1).exists()
    assert record(tmp_path)["rounds"][0]["answers"] == dict(zip(paths, (0, 1, 2, 0), strict=True))


@pytest.mark.parametrize(("words", "difference"), [
    (("OPTIM.LR", "0.5"), "OPTIM.LR: 0.01 -> 0.5"), (("ACTIVE.QUERY_SIZE", "5"), "ACTIVE.QUERY_SIZE: 4 -> 5"),
    (("ACTIVE.SAMPLER", "random"), "ACTIVE.SAMPLER: 'coreset' -> 'random'")])
def test_another_config_is_refused_while_the_first_question_waits(start, truth, tmp_path, words, difference):
    """Row 13: the folder belongs to its run even before the first round is done. The query and its labels stay."""
    start()
    fill(table(tmp_path, 0), truth)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != "log.txt"}
    code, err = start(*words)
    assert code == 1 and difference in err
    assert {path: path.read_bytes() for path in before} == before


def test_a_drawn_seed_stays_while_people_label(start, truth, tmp_path):
    """Row 16: SEED -1 draws only once, so the labels belong to the images that were asked."""
    start("SEED", "-1")
    paths = fill(table(tmp_path, 0), truth)
    code, err = start("SEED", "-1")
    assert code == 3 and str(table(tmp_path, 1)) in err, err
    assert record(tmp_path)["rounds"][0]["queried"] == paths


def test_a_question_is_not_selected_again(start, truth, tmp_path, monkeypatch):
    """Row 25: on another machine the last bits may differ. The same images must be asked, or the labels would be lost."""
    start()
    first = fill(table(tmp_path, 0), truth)
    with monkeypatch.context() as other_machine:
        other_machine.setattr(active.asking, "_select", lambda *_: pytest.fail("it was selected again"))
        other_machine.setattr(active.loop, "event", stop_after("after-fit"))
        with pytest.raises(KeyError, match="after-fit"):
            start()
    assert start()[0] == 3
    assert record(tmp_path)["rounds"][0]["queried"] == first


def stop_after(name: str):
    """Return an `event` that raises KeyError at one of them."""

    def event(found: str) -> None:
        if found == name:
            raise KeyError(name)

    return event


def test_a_question_of_another_run_is_refused(start, tmp_path):
    """Without the record, a query cannot show that it fits. It is bound to its config."""
    start()
    (tmp_path / "run" / "results.json").unlink()
    code, err = start("OPTIM.LR", "0.5")
    assert code == 1 and "round_000_query.json was asked under another config" in err


def test_labels_that_changed_after_they_counted_are_not_read_again(start, truth, tmp_path):
    """The record holds the answers: editing an old file has no effect."""
    start()
    paths = fill(table(tmp_path, 0), truth)
    start()
    table(tmp_path, 0).write_text("gone")
    fill(table(tmp_path, 1), truth)
    assert start()[0] == 0
    assert record(tmp_path)["rounds"][0]["answers"] == {path: NAMES.index(truth[path]) for path in paths}


def test_a_changed_answer_in_the_record_is_found(start, truth, tmp_path):
    """The hash of a round covers people's labels."""
    start()
    fill(table(tmp_path, 0), truth)
    start()
    content = record(tmp_path)
    answers = content["rounds"][0]["answers"]
    answers[next(iter(answers))] ^= 1
    (tmp_path / "run" / "results.json").write_text(json.dumps(content))
    code, err = start()
    assert code == 1 and "do not match their hash" in err


def exported(paths: list[str], truth: dict[str, str], **changes: list[str]) -> str:
    """Return a JSON export of Label Studio: a task an image, an annotation for each of its answers."""
    return json.dumps([{
        "id": number, "data": {"image": f"/data/local-files/?d={path}", "path": path}, "predictions": [],
        "annotations": [{"id": 1, "was_cancelled": False, "result": [
            {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [name]}}]}
            for name in changes.get(f"task{number}", [truth[path]])]} for number, path in enumerate(paths, start=1)])


def test_a_label_studio_export_answers_a_query(start, truth, tmp_path):
    """It is put next to the CSV file, which stays empty, and its answers are read."""
    start()
    paths = asked(table(tmp_path, 0))
    (table(tmp_path, 0).parent / "round_000_export.json").write_text(exported(paths, truth))
    assert start()[0] == 3 and table(tmp_path, 1).exists()
    assert record(tmp_path)["rounds"][0]["answers"] == {path: NAMES.index(truth[path]) for path in paths}


def test_an_export_may_hold_earlier_rounds_and_remarks(start, truth, tmp_path):
    """Label Studio exports a whole project. Tasks that have already counted are ignored, and so is text next to a choice."""
    start()
    first = fill(table(tmp_path, 0), truth)
    start()
    tasks = json.loads(exported(first + asked(table(tmp_path, 1)), truth, task1=["zero", "two"]))
    tasks[5]["annotations"][0]["result"].append({"type": "textarea", "value": {"text": ["blurred"]}})
    (table(tmp_path, 1).parent / "round_001_export.json").write_text(json.dumps(tasks))
    code, err = start()
    assert code == 0, err
    assert record(tmp_path)["rounds"][0]["answers"] == {path: NAMES.index(truth[path]) for path in first}


@pytest.mark.parametrize("choice", [3, None, ["zero"], {"a": 1}])
def test_a_choice_that_is_no_text_is_an_unknown_class(start, truth, tmp_path, choice):
    """Row 25: there is no traceback, and it is listed with its task."""
    start()
    export = exported(asked(table(tmp_path, 0)), truth, task2=[choice])
    (table(tmp_path, 0).parent / "round_000_export.json").write_text(export)
    code, err = start()
    assert code == 1 and "round_000_export.json task 2: unknown class" in err and "Traceback" not in err


def test_two_annotators_who_disagree_are_listed_and_a_skipped_task_waits(start, truth, tmp_path):
    """Row 25: conflicts name the task; a task without an annotation has no label yet."""
    start()
    paths = asked(table(tmp_path, 0))
    export = table(tmp_path, 0).parent / "round_000_export.json"
    export.write_text(exported(paths, truth, task2=["zero", "two"]))
    code, err = start()
    assert code == 1 and f"round_000_export.json task 2: {paths[1]} is both 'zero' and 'two'" in err
    export.write_text(exported(paths, truth, task2=[]))
    code, err = start()
    assert code == 3 and f"1 of 4 images wait for a label, first {paths[1]}" in err


@pytest.mark.parametrize("text", ['{"a": 1}', "[1]", '[{"image": "x", "label": "zero"}]', "not JSON"])
def test_what_is_no_export_is_refused(start, tmp_path, text):
    """JSON-MIN and anything else is one line that names the file."""
    start()
    (table(tmp_path, 0).parent / "round_000_export.json").write_text(text)
    code, err = start()
    assert code == 1 and "round_000_export.json" in err and err.count("\n") == 1


def test_tasks_carry_the_first_guess_as_prediction(start, tmp_path):
    """Each task names the image below the data root, its id and the class that the CSV file shows as first guess."""
    start()
    tasks = json.loads((table(tmp_path, 0).parent / "round_000_tasks.json").read_text())
    with table(tmp_path, 0).open(newline="") as text:
        rows = list(csv.DictReader(text))
    for task, row in zip(tasks, rows, strict=True):
        assert task["data"] == {"image": f"/data/local-files/?d={row['path']}", "path": row["path"]}
        guess = task["predictions"][0]["result"][0]["value"]["choices"][0]
        assert row["guess 1"] == f"{guess} ({task['predictions'][0]['score']:.0%})"
    config = (table(tmp_path, 0).parent / "label_config.xml").read_text()
    assert re.findall(r'<Choice value="(.*?)"/>', config) == [*NAMES, "!none", "!unsure"]


def test_images_whose_label_is_known_are_not_asked(start, photos, truth, tmp_path):
    """If some of the folder is labeled, people are asked only for the rest, and labeled test images give an accuracy."""
    known = [path for path in truth if path not in sorted(truth)[::3]]
    (photos / "labels.csv").write_text("\n".join(["path,label", *(f"{path},{truth[path]}" for path in known)]))
    words = ("DATASET.IMAGEFOLDER.LABELS", "labels.csv", "ACTIVE.SAMPLER", "random", "ACTIVE.QUERY_SIZE", "10")
    questions = []
    for round in range(2):
        assert start(*words)[0] == 3
        questions += fill(table(tmp_path, round), truth)
    assert start(*words)[0] == 0
    rounds = record(tmp_path)["rounds"]
    queried = [path for round in rounds for path in round["queried"]]
    assert len(queried) == 20 and set(questions) == set(queried) - set(known)
    assert all(0 <= round["metrics"]["accuracy"] <= 1 for round in rounds)


def test_without_people_unlabeled_images_are_refused(start):
    """ACTIVE.ORACLE labels on a folder without labels is an error, as before."""
    code, err = start("ACTIVE.ORACLE", "labels")
    assert code == 1 and "30 of 30 train images have no label" in err


def test_answers_come_along_when_a_run_is_replayed(start, truth, tmp_path):
    """A run labeled by people can be studied with another learner, and nobody is asked again."""
    for round in range(2):
        start()
        fill(table(tmp_path, round), truth)
    start()
    code, err = start("ACTIVE.SAMPLER", "replay", "ACTIVE.REPLAY.RESULTS", str(tmp_path / "run" / "results.json"),
                      "TRAINER.COOP.N_CTX", "4", output="again")
    assert code == 0, err
    rounds = [record(tmp_path, output)["rounds"] for output in ("run", "again")]
    assert [round["queried"] for round in rounds[0]] == [round["queried"] for round in rounds[1]]
    assert [round["class_counts"] for round in rounds[0]] == [round["class_counts"] for round in rounds[1]]
    assert not (tmp_path / "again" / "queries").exists()


def test_a_run_labeled_by_people_can_be_verified(start, truth, tmp_path, capsys):
    """The repetition takes the answers from the record, so the filled files may be gone."""
    for round in range(2):
        start()
        fill(table(tmp_path, round), truth)
    start()
    results = tmp_path / "run" / "results.json"
    for file in (tmp_path / "run" / "queries").glob("*_query.json"):
        file.write_text("[]")  # else it would be taken from there instead of being selected again
    first = asked(table(tmp_path, 1))[0]
    fill(table(tmp_path, 1), truth | {first: next(name for name in NAMES if name != truth[first])})
    table(tmp_path, 0).unlink()
    capsys.readouterr()
    assert verify.main([str(results)]) == 0
    assert capsys.readouterr().out == "equal: 2 rounds, all picks, labels and metrics\n"


def test_copies_are_not_asked_twice(start, photos, truth, tmp_path, capsys):
    """An image with the same bytes as another one, labeled or not, is left out with a message. A key asks for copies too."""
    first, second, known = sorted(truth)[0], sorted(truth)[1], sorted(truth)[2]
    for name, source in (("zz_copy.png", first), ("00_copy.png", second), ("of_known.png", known)):
        shutil.copy(photos / source, photos / name)
    (photos / "labels.csv").write_text(f"path,label\n{known},{truth[known]}\n")
    words = ("DATASET.IMAGEFOLDER.LABELS", "labels.csv", "ACTIVE.QUERY_SIZE", "40", "ACTIVE.SAMPLER", "random")
    assert start(*words)[0] == 3
    assert set(asked(table(tmp_path, 0))) == set(truth) - {known}
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "3 images are copies of others, byte for byte, and are not asked: " in log and f"zz_copy.png = {first}" not in asked(
        table(tmp_path, 0))
    assert start(*words, "DATASET.IMAGEFOLDER.COPIES", "ask", output="all")[0] == 3
    assert len(asked(tmp_path / "all" / "queries" / "round_000.csv")) == 32
    code, err = start(*words, "DATASET.IMAGEFOLDER.COPIES", "ask")
    assert code == 1 and "DATASET.IMAGEFOLDER.COPIES: 'skip' -> 'ask'" in err


def test_copies_cost_no_second_reading(start, photos, truth, tmp_path, monkeypatch):
    """The hashes of the feature cache tell them; at the next start no file is read."""
    shutil.copy(photos / sorted(truth)[0], photos / "zz_copy.png")
    start()
    monkeypatch.setattr(digests, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    fill(table(tmp_path, 0), truth)
    assert start()[0] == 3


def test_a_root_that_cannot_be_written_needs_a_cache_folder_alone(start, photos, truth, tmp_path, monkeypatch):
    """Row 11: the drawn split, hashes and features go there. Nothing is written next to the images."""
    (photos / "labels.csv").write_text("\n".join(["path,label", *(f"{path},{truth[path]}" for path in sorted(truth)[::2])]))
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != photos and access(path, mode))
    words = ("DATASET.IMAGEFOLDER.LABELS", "labels.csv", "CACHE_DIR", str(tmp_path / "cache"))
    assert start(*words)[0] == 3
    fill(table(tmp_path, 0), truth)
    assert start(*words)[0] == 3
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before
    assert len(list((tmp_path / "cache").glob("*_split_val0_test0.3_seed0.json"))) == 1
    assert check.main(["--root", str(photos), "DATASET.NAME", "ImageFolder", "DATASET.IMAGEFOLDER.CLASSES", "classes.txt",
                       "DATASET.IMAGEFOLDER.LABELS", "labels.csv", "DATASET.IMAGEFOLDER.VAL", "0", "CACHE_DIR",
                       str(tmp_path / "cache")]) == 0
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before


def test_a_root_that_is_wrong_is_named_and_not_made(start, tmp_path):
    """The error is not about the missing file of class names. Nothing is written there, not even a cache."""
    for words in ((), ("DATASET.IMAGEFOLDER.CLASSES", "")):
        code, err = start("--root", str(tmp_path / "fotos"), *words)
        assert code == 1 and f"cannot read the folder {tmp_path}/fotos: it is not a folder; --root" in err
        assert not (tmp_path / "fotos").exists()


def test_a_record_of_before_gives_its_data_set(tmp_path):
    """For figures: it lacks the newer keys, and its copies were asked."""
    shutil.copytree(BEFORE / "photos", tmp_path / "photos")
    config = RunResult.read(BEFORE / "run" / "results.json").config | {"CACHE_DIR": ""}
    assert len(recorded_dataset(config, str(tmp_path / "photos")).train) == 25
    config["DATASET"]["IMAGEFOLDER"]["COPIES"] = "skip"
    assert len(recorded_dataset(config, str(tmp_path / "photos")).train) == 24


def test_a_whole_data_set_keeps_its_copies(start, photos, truth, tmp_path):
    """A simulated oracle answers what it is asked, as ever."""
    shutil.copy(photos / sorted(truth)[0], photos / "zz_copy.png")
    labels = truth | {"zz_copy.png": truth[sorted(truth)[0]]}
    (photos / "labels.csv").write_text("\n".join(["path,label", *(f"{path},{name}" for path, name in labels.items())]))
    code, err = start("ACTIVE.ORACLE", "labels", "DATASET.IMAGEFOLDER.LABELS", "labels.csv")
    assert code == 0, err
    config, data = (record(tmp_path)[part] for part in ("config", "dataset"))
    assert (config["DATASET"]["IMAGEFOLDER"]["VAL"], config["DATASET"]["IMAGEFOLDER"]["COPIES"]) == (0.2, "ask")
    assert data["n_train"] + data["n_test"] < 31 and (photos / "split_val0.2_test0.3_seed0.json").exists()


def test_no_label_of_people_is_held_out_as_val(start, photos, truth, tmp_path):
    """Nothing would read it, and a message says so. A VAL that was asked for, and an older split, stay as they are."""
    (photos / "labels.csv").write_text("\n".join(["path,label", *(f"{path},{truth[path]}" for path in sorted(truth)[::2])]))
    words = ("DATASET.IMAGEFOLDER.LABELS", "labels.csv")
    assert start(*words)[0] == 3
    assert record(tmp_path)["config"]["DATASET"]["IMAGEFOLDER"]["VAL"] == 0.0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert ", 0 val, " in log and "of labels that people made none is held out as val, since nothing reads it" in log
    assert start(*words, "DATASET.IMAGEFOLDER.VAL", "0.2", output="asked")[0] == 3
    assert start(*words, output="later")[0] == 3
    assert record(tmp_path, "later")["config"]["DATASET"]["IMAGEFOLDER"]["VAL"] == 0.2
    assert start(*words)[0] == 3, "a run goes on as it was begun"


@pytest.mark.parametrize(("output", "words"), [("run", ()), ("labeled", ("DATASET.IMAGEFOLDER.LABELS", "labels.csv"))])
def test_a_run_of_before_goes_on_with_its_files(tmp_path, capsys, output, words):
    """Row 13: sheets, export, query, split with val and asked copies are kept, and it ends with the labels of that time."""
    shutil.copytree(BEFORE, tmp_path / "before")
    root, run = tmp_path / "before" / "photos", tmp_path / "before" / output
    truth, old = json.loads((root / "truth.json").read_text()), json.loads((run / "results.json").read_text())
    sheet = run / "queries" / "round_001.csv"
    content = sheet.read_bytes()
    words = ["--config-file", "configs/quickstart.yaml", "--root", str(root), "--output-dir", str(run), "DATASET.NAME",
             "ImageFolder", "DATASET.IMAGEFOLDER.CLASSES", "classes.txt", "ACTIVE.ORACLE", "file", "ACTIVE.ROUNDS", "2",
             "ACTIVE.QUERY_SIZE", "4", "OPTIM.MAX_EPOCH", "2", "TRAINER.COOP.N_CTX", "1", *words]
    assert train.main(words) == 3 and sheet.read_bytes() == content, capsys.readouterr().err
    fill(sheet, truth)
    (tmp_path / "again").mkdir()
    assert train.main(words) == 0, capsys.readouterr().err
    new = json.loads((run / "results.json").read_text())
    assert (old["schema"], new["schema"]) == (1, 2)
    for record in old["rounds"]:
        record["metrics"] = {name: record.pop(name) for name in ("accuracy", "macro_f1", "ece")}
        record |= {"corrections": {}, "n_asked": record["n_paid"], "n_skipped": 0, "n_none": 0, "n_unsure": 0,
                   "audited": [], "audit": {}, "kappa": None, "n_known": 0, "n_further": 0, "refills": [],
                   "per_class": {}, "approximation": {}}
    assert new["rounds"][:1] == old["rounds"] and len(new["rounds"]) == 2 and new["dataset"] == old["dataset"]
    again = verify.run_again(RunResult.read(run / "results.json"), tmp_path / "again", str(root), fresh=False)
    assert again.dataset == old["dataset"] and [(own.queried, own.answers) for own in again.rounds] == [
        (own["queried"], own["answers"]) for own in new["rounds"]]


def test_a_class_name_that_begins_as_a_formula_goes_out_and_comes_back(photos, source, truth, tmp_path, capsys):
    """Row 25: no cell of the sheet is a formula, and a guess that people copy from it is read back."""
    (photos / "classes.txt").write_text("=zero\n+one\n-two\n")
    for name in sorted(truth):
        (photos / name).rename(photos / f"-{name}")
    words = ["--config-file", "configs/quickstart.yaml", "--root", str(photos), "--output-dir", str(tmp_path / "run"),
             "DATASET.NAME", "ImageFolder", "DATASET.IMAGEFOLDER.CLASSES", "classes.txt", "ACTIVE.ORACLE", "file",
             "ACTIVE.ROUNDS", "1", "ACTIVE.QUERY_SIZE", "4", "OPTIM.MAX_EPOCH", "1"]
    assert train.main(words) == 3
    with table(tmp_path, 0).open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert all(row["path"].startswith("'-") and row["guess 1"][:2] in ("'=", "'+", "'-") for row in rows)
    lines = [f"{row['path']},{row['guess 1'].rsplit(' (', 1)[0]}" for row in rows]
    table(tmp_path, 0).write_text("\n".join(["path,label", *lines]))
    assert train.main(words) == 0, capsys.readouterr().err
    answers = record(tmp_path)["rounds"][0]["answers"]
    assert answers == {row["path"][1:]: "=+-".index(row["guess 1"][1]) for row in rows}
