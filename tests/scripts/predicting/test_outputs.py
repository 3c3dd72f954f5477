"""Folders of classes with odd names, images of one name, and files that are whole or absent."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dassl.utils.errors import DataError, UserError
from scripts.predicting.outputs import folder_names, label_studio, sorted_into, table
from scripts.predicting.rows import Row

NAMES = ("cat", "dog")


def row(place: Path, label: int = 0, name: str = "") -> Row:
    return Row(name or str(place), place, np.eye(2)[int(label)] * 0.5 + 0.25)


def test_folder_names_are_fit_for_every_system():
    """Row 34: no paths, device names or hidden files, and no two alike in any case. Where possible they are unchanged."""
    odd = ("heron", "a/b", "..", ".", "", "Heron", "a\\b", "CON", "nul.txt", "x" * 300, "ends with a dot.", "été", " blank ",
           "a\nb", "-rf", "日" * 100)
    found = folder_names(odd)
    assert found[:3] == ["heron", "a_b", "_"] and found[5:7] == ["Heron (2)", "a_b (2)"] and found[11:13] == ["été", "blank"]
    assert found[7:9] == ["_CON", "_nul.txt"] and found[10] == "ends with a dot" and found[13] == "a_b (3)"
    assert len({name.casefold() for name in found}) == len(odd)
    for name in found:
        assert name and not name.startswith(".") and len(name.encode()) <= 210 and "/" not in name and "\n" not in name


@pytest.mark.parametrize("copy", [False, True])
def test_images_of_one_name_all_find_their_place(tmp_path, copy):
    """They come from different folders, and a numbered name may already exist. No image replaces another."""
    files = [tmp_path / "photos" / part for part in ("a/1.jpg", "b/1.jpg", "c/1.jpg", "b/1 (2).jpg", "d/1.JPG", "a/noend")]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(number))
    with sorted_into(tmp_path / "sorted", NAMES, [], copy=copy) as add:
        for number in (0, 3, 1, 2, 4, 5):
            add(row(files[number], label=number == 5))
    found = {path.name: path.read_text() for path in (tmp_path / "sorted" / "cat").iterdir()}
    assert found == {"1.jpg": "0", "1 (2).jpg": "3", "1 (3).jpg": "1", "1 (4).jpg": "2", "1.JPG": "4"}
    assert (tmp_path / "sorted" / "dog" / "noend").is_symlink() is not copy
    if copy:
        files[0].write_text("changed")
        assert (tmp_path / "sorted" / "cat" / "1.jpg").read_text() == "0"


def test_links_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").write_text("a")
    with sorted_into(Path("deep/er/sorted"), NAMES, [], copy=False) as add:
        add(row(Path("a.jpg")))
    assert (tmp_path / "deep" / "er" / "sorted" / "cat" / "a.jpg").read_text() == "a"


def test_an_empty_folder_is_taken_and_one_with_files_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    with sorted_into(tmp_path / "empty", NAMES, [], copy=False):
        pass
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == ["cat", "dog"]
    with pytest.raises(UserError, match="holds files already"), sorted_into(tmp_path / "empty", NAMES, [], copy=False):
        pass


def test_a_file_that_cannot_be_copied_is_one_error_and_nothing_is_left(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*sorted: No such file"), sorted_into(
            tmp_path / "sorted", NAMES, [], copy=True) as add:
        add(row(tmp_path / "gone.jpg"))
    assert list(tmp_path.iterdir()) == []


def test_odd_paths_survive_and_are_no_formulas(tmp_path):
    """This covers bytes that are not UTF-8, commas, quotes and line ends. Negative numbers stay numbers."""
    names = ["=1+1.png", "a,b.png", 'a"b.png', "a\nb.png", "caf\udce9.png"]
    with table(tmp_path / "out.csv", NAMES) as add:
        for name in names:
            add(Row(name, Path(name), np.array([0.75, 0.25]), 1))
    with open(tmp_path / "out.csv", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [own["path"] for own in rows] == ["'=1+1.png", *names[1:]] and {own["margin"] for own in rows} == {"-0.5"}
    with label_studio(tmp_path / "tasks.json", NAMES, "round_001", []) as add:
        for name in names:
            add(row(Path(name)))
        add(Row("no.png", Path("no.png"), DataError("no")))
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["data"]["path"] for task in tasks] == names and tasks[0]["predictions"][0]["model_version"] == "round_001"


def test_no_image_is_a_table_and_a_list_all_the_same(tmp_path):
    with table(tmp_path / "out.csv", NAMES), label_studio(tmp_path / "tasks.json", NAMES, "", []):
        pass
    assert (tmp_path / "out.csv").read_text().startswith("path,label,")
    assert json.loads((tmp_path / "tasks.json").read_text()) == []


def test_a_stop_leaves_what_was_there(tmp_path):
    (tmp_path / "out.csv").write_text("before")
    with pytest.raises(KeyboardInterrupt), table(tmp_path / "out.csv", NAMES) as add:
        add(row(Path("a.png")))
        raise KeyboardInterrupt
    assert (tmp_path / "out.csv").read_text() == "before" and len(list(tmp_path.iterdir())) == 1
