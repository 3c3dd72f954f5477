"""Labels carry over: into a run of more photos, of other classes, or of another backbone."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from active import verify
from active.build import carry_out
from active.known import read_known
from active.record.results import RunResult
from dassl.data.answers import NONE, SKIP, UNSURE
from dassl.data.dataset import UNLABELED, Dataset, Datum
from dassl.utils.errors import DataError
from dassl.utils.journal import Journal
from tests import commands
from tests.active.toy import N_CLASSES, N_TRAIN, ToyTrainer, cut_back, record_of, toy_config, toy_task
from tests.page_runs import NAMES as NAMES_OF_DIGITS
from tests.test_answers import asked, fill, photos, rounds, sheet, start, truth  # noqa: F401  fixtures

TRUTH = toy_task()[0].labels("train").tolist()
NUMBERS = {"zero": 0, "one": 1, "two": 2}
NAMES = ("heron", "kingfisher", "golden oriole")


def data(names=NAMES, n: int = 6) -> Dataset:
    return Dataset("Birds", Path("nowhere"), tuple(Datum(f"{row}.jpg", -1) for row in range(n)), (), (), tuple(names))


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_table_is_read(tmp_path):
    """Names may be in any case, and special answers are read too. Images that are not here are ignored."""
    rows = ["0.jpg,Heron", "./1.jpg,golden_oriole", "2.jpg,!none", "3.jpg,!skip", "4.jpg,", "x.jpg,heron"]
    file = written(tmp_path / "a.csv", "\n".join(["path,label", *rows]))
    assert read_known(file, "", data()) == {"0.jpg": 0, "1.jpg": 2, "2.jpg": NONE, "3.jpg": SKIP}


def test_an_export_is_read(tmp_path):
    task = {"id": 1, "data": {"path": "2.jpg"}, "annotations": [{"result": [
        {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["kingfisher"]}}]}]}
    assert read_known(written(tmp_path / "a.json", json.dumps([task])), "", data()) == {"2.jpg": 1}


def test_a_label_whose_class_is_gone_is_named(tmp_path, caplog):
    """It is never dropped silently, and the other labels count."""
    file = written(tmp_path / "a.csv", "path,label\n0.jpg,heron\n1.jpg,magpie\n2.jpg,magpie\n3.jpg,wren\n")
    with caplog.at_level(logging.WARNING):
        assert read_known(file, "", data()) == {"0.jpg": 0}
    assert "3 labels are of classes that are not there and do not count: magpie (2), wren (1)" in caplog.text


def test_classes_may_have_new_names(tmp_path, caplog):
    """Two classes may be merged into one. Dropping one on purpose is not reported."""
    file = written(tmp_path / "a.csv", "path,label\n0.jpg,grey heron\n1.jpg,White Heron\n2.jpg,crow\n3.jpg,kingfisher\n")
    renamed = written(tmp_path / "new.csv", "old,new\ngrey heron,heron\nwhite heron,heron\ncrow,\n")
    with caplog.at_level(logging.WARNING):
        assert read_known(file, renamed, data()) == {"0.jpg": 0, "1.jpg": 0, "3.jpg": 1}
    assert not caplog.text
    with pytest.raises(DataError, match="'herron' is not a class"):
        read_known(file, written(tmp_path / "bad.csv", "old,new\ncrow,herron\n"), data())
    with pytest.raises(DataError, match="columns old and new"):
        read_known(file, written(tmp_path / "bad.csv", "from,to\ncrow,heron\n"), data())


def test_an_image_of_two_labels_is_an_error(tmp_path):
    file = written(tmp_path / "a.csv", "path,label\n0.jpg,heron\n0.jpg,kingfisher\n")
    with pytest.raises(DataError, match="is both"):
        read_known(file, "", data())
    with pytest.raises(DataError, match="cannot read"):
        read_known(str(tmp_path / "none.csv"), "", data())


def known_file(tmp_path: Path, rows: list[int]) -> str:
    lines = [f"train/{row:03d}.png,class {TRUTH[row]}" for row in rows]
    return written(tmp_path / "known.csv", "\n".join(["path,label", *lines]))


def finished(output: Path, **values) -> tuple[RunResult, ToyTrainer]:
    dataset, features, texts = toy_task()
    trainer = ToyTrainer(features, texts)
    return carry_out(toy_config(output, **values), dataset, trainer), trainer


@pytest.mark.parametrize("sampler", ["coreset", "random", "entropy", "cec"])
def test_known_labels_are_there_from_the_start(tmp_path, sampler):
    """They are trained on, not asked or paid, and reported apart. A sampler that needs labels already selects in round 0."""
    rows = list(range(0, 20, 2))
    result, trainer = finished(tmp_path / "run", ACTIVE__KNOWN_LABELS=known_file(tmp_path, rows), ACTIVE__SAMPLER=sampler)
    paths = {f"train/{row:03d}.png" for row in rows}
    assert not paths & {path for record in result.rounds for path in record.queried}
    assert [(own.n_known, own.n_paid, own.n_labeled) for own in result.rounds] == [(10, 6 * k, 10 + 6 * k) for k in range(1, 5)]
    assert all(set(rows) <= set(fitted[0].tolist()) for fitted in trainer.fitted) and trainer.fitted[0][2] == -1
    assert result.rounds[0].sampler == sampler and result.known == {path: TRUTH[int(path[6:9])] for path in paths}


def test_a_run_goes_on_with_the_labels_that_it_began_with(tmp_path):
    """This holds even if the file has changed or is gone."""
    file = known_file(tmp_path, [1, 2, 3, 5])
    values = {"ACTIVE__KNOWN_LABELS": file, "ACTIVE__SAMPLER": "coreset"}
    whole, _ = finished(tmp_path / "run", **values)
    for change in (lambda: known_file(tmp_path, [7, 8]), Path(file).unlink):
        cut_back(tmp_path / "run" / "results.json", 2)
        change()
        again, _ = finished(tmp_path / "run", **values)
        assert record_of(again) == record_of(whole) and again.known == whole.known


def test_the_audit_takes_no_known_image(tmp_path):
    """The model would have been trained on it."""
    rows = list(range(30))
    result, _ = finished(tmp_path / "run", ACTIVE__KNOWN_LABELS=known_file(tmp_path, rows), ACTIVE__AUDIT=5)
    assert not set(result.rounds[0].audited) & result.known.keys() and len(result.rounds[0].audited) == 5


def test_a_pool_of_known_labels_alone_asks_nobody(tmp_path):
    result, _ = finished(tmp_path / "run", ACTIVE__KNOWN_LABELS=known_file(tmp_path, list(range(N_TRAIN))))
    assert result.finished and result.rounds == []


def test_people_s_labels_carry_over(start, truth, photos, tmp_path, monkeypatch, capsys):  # noqa: F811
    """A second run on more photos and one more class does not ask for them again, and can be repeated from its record."""
    start()
    first = fill(sheet(tmp_path, 0), {path: name if place % 4 else "!none" for place, (path, name) in enumerate(truth.items())})
    start()
    corrected = fill(sheet(tmp_path, 1), truth, f"{first[0]},{truth[first[0]]}")
    assert start()[0] == 3
    answers = {path: answer for record in rounds(tmp_path) for path, answer in (record.answers | record.corrections).items()}
    assert len(answers) == 8 and corrected
    shutil.copy(photos / first[0], photos / "new.png")
    words = ["ACTIVE.KNOWN_LABELS", str(tmp_path / "run" / "results.json")]
    code, error = start(*words, output="more")
    assert code == 3, error
    assert not set(fill(sheet(tmp_path, 0, "more"), truth | {"new.png": "one"})) & answers.keys()
    assert RunResult.read(tmp_path / "more" / "results.json").known == answers
    (photos / "classes.txt").write_text("zero\none\ntwo\nthree")
    code, error = start(*words, output="other")
    assert code == 3 and RunResult.read(tmp_path / "other" / "results.json").known == {
        path: answer for path, answer in answers.items() if answer != "none"}
    (photos / "classes.txt").write_text("zero\none\ntwo")
    code, error = start(*words, output="more")
    for round in (1, 2):
        assert code == 3, error
        fill(sheet(tmp_path, round, "more"), truth | {"new.png": "one"})
        code, error = start(*words, output="more")
    assert code == 0, error
    monkeypatch.setattr(verify.subprocess, "run", commands.run)
    old = RunResult.read(tmp_path / "more" / "results.json")
    (tmp_path / "run" / "results.json").unlink()
    (tmp_path / "again").mkdir()
    again = verify.run_again(old, tmp_path / "again", str(photos), fresh=False)
    assert list(verify.differences(old, again)) == []


def test_answers_to_an_open_question_carry_over(start, truth, photos, tmp_path):  # noqa: F811
    """Such as when the folder has changed, so that the run cannot go on; the error says how they count elsewhere."""
    start()
    counted = fill(sheet(tmp_path, 0), truth)
    start()
    first, second, *_ = asked(sheet(tmp_path, 1))
    sheet(tmp_path, 1).write_text(f"path,label\n{first},{truth[first]}\n{second},!skip\n{counted[0]},two\n")
    gone = next(path for path in truth if path not in {first, second, *counted})
    (photos / gone).rename(tmp_path / "gone.png")
    code, error = start()
    record = tmp_path / "run" / "results.json"
    assert code == 1 and f"another --output-dir, with ACTIVE.KNOWN_LABELS {record} if its labels should count" in error
    assert start("ACTIVE.KNOWN_LABELS", str(record), output="more")[0] == 3
    known = RunResult.read(tmp_path / "more" / "results.json").known
    answers = {path: truth[path] for path in counted} | {first: truth[first], second: "skip", counted[0]: "two"}
    assert known == {path: NUMBERS.get(answer, answer) for path, answer in answers.items()}
    assert not known.keys() & set(asked(sheet(tmp_path, 0, "more")))


@pytest.mark.parametrize("by_itself", [False, True])
def test_answers_in_a_journal_of_the_page_carry_over(tmp_path, by_itself):
    """The last one to each image, without those taken back. The journal of a page that is open stays as it is."""
    finished(tmp_path / "run", ACTIVE__ROUNDS=2)
    record, paths = tmp_path / "run" / "results.json", [datum.path for datum in toy_task()[0].train]
    before = {path for round in RunResult.read(record).rounds for path in round.queried}
    first, second, third = [path for path in paths if path not in before][:3]
    file = tmp_path / "run" / "queries" / "round_002_answers.jsonl"
    answers = [(first, "class 1"), (second, "class 0"), (first, "!skip"), (third, "class 2"), (third, "")]
    Journal(file).append([{"time": "", "who": "", "path": path, "answer": answer} for path, answer in answers])
    with file.open("a") as text:
        text.write('{"time": "", "who"')
    content, dataset = file.read_bytes(), toy_task()[0]
    found = read_known(str(file if by_itself else record), "", dataset)
    expected = {} if by_itself else {datum.path: datum.label for datum in dataset.train if datum.path in before}
    assert found == expected | {first: SKIP, second: 0} and file.read_bytes() == content
    file.write_text("[1]\n")
    with pytest.raises(DataError, match=r"round_002_answers\.jsonl line 1 is no answer of the labeling page"):
        read_known(str(file), "", dataset)


def test_every_class_may_be_known(tmp_path):
    """Class counts include known labels."""
    result, _ = finished(tmp_path / "run", ACTIVE__KNOWN_LABELS=known_file(tmp_path, list(range(20))))
    counts = np.bincount(TRUTH[:20], minlength=N_CLASSES)
    assert (np.array(result.rounds[0].class_counts) >= counts).all() and sum(result.rounds[0].class_counts) == 26


def test_unsure_of_a_renamed_class_is_unsure_of_the_new_one(tmp_path):
    file = written(tmp_path / "a.csv", "path,label\n0.jpg,!unsure grey heron\n1.jpg,!unsure\n")
    renamed = written(tmp_path / "new.csv", "old,new\ngrey heron,heron\n")
    assert read_known(file, renamed, data()) == {"0.jpg": UNSURE - 1, "1.jpg": UNSURE}


def test_labels_that_the_data_set_gave_carry_over(tmp_path):
    """A record names the images, and their labels come from the data set."""
    old, _ = finished(tmp_path / "old", ACTIVE__AUDIT=5)
    new, _ = finished(tmp_path / "new", ACTIVE__KNOWN_LABELS=tmp_path / "old" / "results.json", ACTIVE__ROUNDS=1)
    asked = {path for record in old.rounds for path in (*record.queried, *record.audited)}
    assert new.known == {path: TRUTH[int(path[6:9])] for path in asked} and new.rounds[0].n_known == 29


def test_a_record_tells_of_the_images_that_are_still_there(tmp_path):
    """It passes over images that are gone, and those that the data set no longer labels."""
    old, _ = finished(tmp_path / "old")
    gone, untold, *others = (path for record in old.rounds for path in record.queried)
    dataset = toy_task()[0]
    train = tuple(replace(datum, label=UNLABELED) if datum.path == untold else datum
                  for datum in dataset.train if datum.path != gone)
    found = read_known(str(tmp_path / "old" / "results.json"), "", replace(dataset, train=train))
    assert found == {path: TRUTH[int(path[6:9])] for path in others}


def test_that_an_image_is_of_no_class_counts_for_the_same_classes_alone(tmp_path):
    """The same classes may have new names. If a class was added, only skipped images keep their answer."""
    dataset, features, texts = toy_task()
    file, dataset = tmp_path / "old" / "results.json", replace(dataset, classnames=("Great_Gull", *dataset.classnames[1:]))
    record = carry_out(toy_config(file.parent, ACTIVE__ROUNDS=1), dataset, ToyTrainer(features, texts))
    free = (datum.path for datum in dataset.train if datum.path not in record.rounds[0].queried)
    answers = record.known = dict(zip(free, ("skip", "none", "unsure"), strict=False))
    record.write(file)
    names = ("gull", *dataset.classnames[1:])
    renamed = written(tmp_path / "new.csv", "old,new\ngreat gull,gull\n")

    def said(classnames: tuple[str, ...], renamed: str) -> list[int]:
        found = read_known(str(file), renamed, replace(dataset, classnames=classnames))
        return [found[path] for path in answers if path in found]

    assert said(dataset.classnames, "") == said(names, renamed) == [SKIP, NONE, UNSURE]
    assert said((*dataset.classnames, "gull"), "") == [SKIP]


def test_a_repeated_run_begins_with_what_was_known(tmp_path):
    """It need not be told again."""
    old, _ = finished(tmp_path / "old", ACTIVE__KNOWN_LABELS=known_file(tmp_path, list(range(10))))
    (tmp_path / "known.csv").unlink()
    new, _ = finished(tmp_path / "new", ACTIVE__SAMPLER="replay", ACTIVE__INITIAL_SAMPLER="replay",
                      ACTIVE__REPLAY__RESULTS=tmp_path / "old" / "results.json")
    assert new.known == old.known and [own.n_labeled for own in new.rounds] == [own.n_labeled for own in old.rounds]


def test_an_audit_beside_known_labels_says_what_it_is_of(tmp_path, caplog):
    """The images without one may be the easy ones."""
    finished(tmp_path / "run", ACTIVE__KNOWN_LABELS=known_file(tmp_path, [1, 2, 3]), ACTIVE__AUDIT=5)
    assert "the audit covers images without a known label" in caplog.text


def known_run(start, truth, tmp_path, corrections: dict[str, str], output: str = "run") -> tuple[list[str], RunResult]:  # noqa: F811
    """Do a run that begins with three labels, the first two wrong, which the sheet of round 1 corrects; return their images."""
    known = sorted(truth)[::9]
    wrong = {path: NAMES_OF_DIGITS[(NAMES_OF_DIGITS.index(truth[path]) + 1) % 3] for path in known[:2]}
    file = written(tmp_path / "known.csv", "\n".join(
        ["path,label", *(f"{path},{(truth | wrong)[path]}" for path in known)]))
    words = ["ACTIVE.KNOWN_LABELS", file]
    for round in range(3):
        code, error = start(*words, output=output)
        assert code == 3, error
        rows = [f"{path},{corrections.get(path, (truth | wrong)[path])}" for path in known] if round == 1 else []
        assert not set(fill(sheet(tmp_path, round, output), truth, *rows)) & set(known)
    code, error = start(*words, output=output)
    assert code == 0, error
    return known, RunResult.read(tmp_path / output / "results.json")


def test_a_label_that_was_known_is_corrected_in_a_sheet(start, truth, photos, tmp_path, monkeypatch):  # noqa: F811
    """It is like one that was asked: it counts from that round on, unpaid, when the run goes on, repeats, or is replayed."""
    known = sorted(truth)[::9]
    known, record = known_run(start, truth, tmp_path, {known[0]: truth[known[0]], known[1]: "!none"})
    label = {path: NAMES_OF_DIGITS.index(truth[path]) for path in truth}
    first, second, third = record.rounds
    assert second.corrections == {known[0]: label[known[0]], known[1]: "none"} and not first.corrections | third.corrections
    assert record.known == {known[0]: (label[known[0]] + 1) % 3, known[1]: (label[known[1]] + 1) % 3, known[2]: label[known[2]]}
    assert [(own.n_known, own.n_asked, own.n_paid, own.n_none) for own in record.rounds] == [
        (3, 4, 4, 0), (2, 8, 8, 0), (2, 12, 12, 0)]
    labels = [label[path] for path in (known[0], known[2], *(path for own in record.rounds for path in own.queried))]
    assert third.class_counts == np.bincount(labels, minlength=3).tolist() and third.n_labeled == 14
    monkeypatch.setattr(verify.subprocess, "run", commands.run)
    (tmp_path / "again").mkdir()
    again = verify.run_again(RunResult.read(tmp_path / "run" / "results.json"), tmp_path / "again", str(photos), fresh=False)
    assert list(verify.differences(record, again)) == []
    code, error = start("ACTIVE.SAMPLER", "replay", "ACTIVE.REPLAY.RESULTS", str(tmp_path / "run" / "results.json"),
                        "ACTIVE.INITIAL_SAMPLER", "replay", output="replayed")
    assert code == 0, error
    last = RunResult.read(tmp_path / "replayed" / "results.json").rounds[-1]
    assert (last.class_counts, last.n_labeled, last.n_known) == (third.class_counts, third.n_labeled, third.n_known)
    code, error = start("ACTIVE.KNOWN_LABELS", str(tmp_path / "run" / "results.json"), output="more")
    carried = RunResult.read(tmp_path / "more" / "results.json").known
    assert code == 3 and (carried[known[0]], carried[known[1]]) == (label[known[0]], "none") and len(carried) == 15


def test_a_known_label_that_is_written_again_changes_nothing(start, truth, tmp_path):  # noqa: F811
    _, record = known_run(start, truth, tmp_path, {})
    assert [own.corrections for own in record.rounds] == [{}, {}, {}]


def test_what_was_never_known_nor_asked_is_still_refused(start, truth, tmp_path):  # noqa: F811
    file = written(tmp_path / "known.csv", f"path,label\n{min(truth)},{truth[min(truth)]}\n")
    start("ACTIVE.KNOWN_LABELS", file)
    never = next(path for path in truth if path not in (min(truth), *asked(sheet(tmp_path, 0))))
    fill(sheet(tmp_path, 0), truth, f"{min(truth)},!skip", f"{never},one")
    code, error = start("ACTIVE.KNOWN_LABELS", file)
    assert code == 1 and f"was not asked: {never}" in error and min(truth) not in error
