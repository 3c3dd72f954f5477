"""Split files and drawn splits."""

import tracemalloc
from collections import Counter

import pytest

from dassl.data.dataset import Datum
from dassl.data.splits import cut_classes, folder_rows, hold_out, image_files, read_split, three_way, write_split
from dassl.utils.errors import DataError
from dassl.utils.files import write_json

GOOD = {"train": [["a/1.jpg", 0, "a"]], "val": [], "test": [["b/1.jpg", 1, "b"]]}


def test_a_split_file_round_trips_with_any_file_name(tmp_path):
    """Row 22 of the faults table: spaces, quotes, newline, emoji, bytes that are not UTF-8, NFC and NFD twins."""
    names = ["two words", "quote'\"", "new\nline", "\N{GRINNING FACE}", "latin1 \udce9", "\u00e9", "e\u0301"]
    write_split(tmp_path / "split.json", {"train": [(f"{name}.jpg", 0, "a") for name in names], "val": [], "test": []})
    splits, _ = read_split(tmp_path / "split.json", "images")
    assert splits["train"] == tuple(Datum(f"images/{name}.jpg", 0) for name in names)


@pytest.mark.parametrize(("change", "message"), [
    ({"val": None}, "expected|must hold|not"), ({"train": [["a.jpg", "0", "a"]]}, "expected"),
    ({"train": [["a.jpg", -1, "a"]]}, "expected"), ({"train": [["../a.jpg", 0, "a"]]}, "leads out of the image folder"),
    ({"train": [["/a.jpg", 0, "a"]]}, "leads out of the image folder"), ({"train": [["a.jpg", 1, "c"]]}, "is both"),
    ({"train": [["a.jpg", 3, "c"]]}, r"labels \[0, 2\] have no item")])
def test_a_wrong_split_file_is_an_error_that_names_it(tmp_path, change, message):
    write_json(tmp_path / "split.json", {**GOOD, **{key: value or [[]] for key, value in change.items()}})
    with pytest.raises(DataError, match=rf"split.json: .*({message})"):
        read_split(tmp_path / "split.json", "images")


def test_a_label_of_true_is_none(tmp_path):
    """Python treats True as 1."""
    write_json(tmp_path / "split.json", {**GOOD, "test": [["b/1.jpg", True, "b"]]})
    with pytest.raises(DataError, match=r"expected \[path, label, class name\], not \['b/1.jpg', True, 'b'\]"):
        read_split(tmp_path / "split.json", "images")


@pytest.mark.parametrize("classnames", [(), ("a", "b")])
def test_a_label_of_a_hundred_million_takes_no_memory(tmp_path, classnames):
    """Row 19: naming the missing labels below it took 11.9 GB."""
    write_json(tmp_path / "split.json", {**GOOD, "test": [["b/1.jpg", 10**8, "b"]]})
    tracemalloc.start()
    with pytest.raises(DataError, match=r"is beyond the 2 classes|labels \[1, 2, 3, 4, 5, 6, 7, 8, 9, 10\] have no item"):
        read_split(tmp_path / "split.json", "images", classnames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_known_class_names_keep_a_class_without_images(tmp_path):
    """Row 3 of the faults table."""
    write_json(tmp_path / "split.json", {**GOOD, "test": []})
    assert read_split(tmp_path / "split.json", "", ("a", "empty", "b"))[1] == ("a", "empty", "b")
    with pytest.raises(DataError, match="label 0 is both 'z' and 'a'"):
        read_split(tmp_path / "split.json", "", ("z",))


def test_a_label_beyond_the_known_class_names_is_an_error(tmp_path):
    write_json(tmp_path / "split.json", GOOD)
    with pytest.raises(DataError, match="beyond the 1 classes"):
        read_split(tmp_path / "split.json", "", ("a",))


def rows(*counts: int) -> list:
    return [(f"{label}/{row}.jpg", label, f"class {label}") for label, count in enumerate(counts) for row in range(count)]


def test_three_way_is_50_20_30_percent_of_each_class():
    parts = three_way(rows(100, 31), "toy")
    assert {split: Counter(label for _, label, _ in part) for split, part in parts.items()} == {
        "train": {0: 50, 1: 16}, "val": {0: 20, 1: 6}, "test": {0: 30, 1: 9}}
    assert sorted(row for part in parts.values() for row in part) == sorted(rows(100, 31))


def test_hold_out_takes_20_percent_of_each_class_and_leaves_the_test_split():
    test = [("t.jpg", 0, "class 0")]
    parts = hold_out(rows(100, 31), test, "toy")
    assert {split: len(part) for split, part in parts.items()} == {"train": 80 + 25, "val": 20 + 6, "test": 1}
    assert parts["test"] == test


def test_a_draw_depends_on_title_and_seed_but_not_on_the_order_of_the_rows():
    assert cut_classes(rows(50), (0.5,), "toy") == cut_classes(rows(50)[::-1], (0.5,), "toy")
    assert cut_classes(rows(50), (0.5,), "toy") != cut_classes(rows(50), (0.5,), "other")
    assert cut_classes(rows(50), (0.5,), "toy") != cut_classes(rows(50), (0.5,), "toy", seed=1)


@pytest.mark.parametrize("count", range(6))
def test_classes_of_a_few_images_lose_none(count):
    parts = cut_classes(rows(count), (0.2, 0.3), "toy")
    assert sorted(row for part in parts for row in part) == sorted(rows(count))


def test_a_folder_a_class_gives_its_rows_in_the_order_of_names(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a/x.jpeg", "b/notes.txt", ".hidden/3.jpg", "a/.hidden.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert folder_rows(tmp_path, names={"a": "first"}) == [("a/x.jpeg", 0, "first"), ("b/1.png", 1, "b"), ("b/2.JPG", 1, "b")]


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the folder .*nowhere: No such"):
        image_files(tmp_path / "nowhere")


def test_classes_of_equal_size_have_draws_of_their_own():
    """Files of several classes are often numbered in one series, so drawing the same numbers would draw related photographs."""
    train = cut_classes(rows(20, 20, 20), (0.5,), "toy")[0]
    assert len({tuple(path.split("/")[1] for path, label, _ in train if label == own) for own in range(3)}) == 3
