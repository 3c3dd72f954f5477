"""Table: images that a table lists or holds, in every layout that is known by itself."""

import json
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import datasets  # noqa: F401  registers the data sets
from dassl.config.setup import setup_config
from dassl.data.build import build_dataset, load_dataset
from dassl.data.dataset import DATASETS, SPLITS, UNLABELED
from dassl.data.images import decode, read_bytes, read_image
from dassl.data.loader import image_batches
from dassl.data.table_files import read_table
from dassl.utils.errors import ConfigError, DataError
from datasets.check import check
from tests.data.test_loader import PREPROCESSING
from tests.datasets.made import NAMES, arrow_table, encoded, huggingface, image_files, write_parquet, write_saved

VIEW = PREPROCESSING.transform()

needs_pyarrow = pytest.mark.usefixtures("pyarrow")


@pytest.fixture
def pyarrow():
    return pytest.importorskip("pyarrow")


def build(root: Path, **parameters):
    return DATASETS["Table"].build(root, **parameters)


def said(dataset) -> dict[str, list[tuple[str, int]]]:
    return {split: [(datum.path, datum.label) for datum in dataset.split(split)] for split in SPLITS}


@pytest.fixture
def photos(tmp_path) -> Path:
    """Six images in one folder, without a table yet."""
    image_files(tmp_path, [f"all/{row}.png" for row in range(6)])
    return tmp_path


ROWS = [("all/0.png", "cat", "train"), ("all/1.png", "dog", "train"), ("all/2.png", "cat", "valid"),
        ("all/3.png", "dog", "test")]
SAID = {"train": [("all/0.png", 0), ("all/1.png", 1)], "val": [("all/2.png", 0)], "test": [("all/3.png", 1)]}


@pytest.mark.parametrize(("name", "delimiter"), [("mine.csv", ","), ("mine.csv", ";"), ("mine.tsv", "\t"), ("MINE.CSV", ",")])
@pytest.mark.parametrize("header", [("path", "label", "split"), ("Image", "Class", "Subset"),
                                    ("file_name", "category", "split")])
def test_a_sheet_with_known_columns_is_a_data_set(photos, name, delimiter, header):
    (photos / name).write_text("\n".join(delimiter.join(row) for row in (header, *ROWS)))
    dataset = build(photos)
    assert said(dataset) == SAID
    assert dataset.classnames == ("cat", "dog")
    assert read_image(dataset.files("test")[0]).size == (12, 10)


def test_lines_of_json_are_a_data_set(photos):
    (photos / "mine.jsonl").write_text("\n".join(
        json.dumps({"other": [1], "file_name": path, "label": label, "split": split}) for path, label, split in ROWS))
    assert said(build(photos)) == SAID


def test_one_flag_is_enough(photos):
    (photos / "mine.csv").write_text("path,label,split\n" + "\n".join(map(",".join, ROWS)))
    cfg = setup_config([], [("DATASET.NAME", "Table"), ("DATASET.ROOT", str(photos))], (DATASETS,))
    assert said(load_dataset(cfg.DATASET)) == SAID


def test_columns_of_other_names_are_named(photos):
    (photos / "mine.csv").write_text("wo,was,label\n" + "\n".join(f"{path},{label},x" for path, label, _ in ROWS))
    with pytest.raises(DataError, match=r"no column of images .* among 'wo', 'was', 'label'; name it in DATASET.TABLE.IMAGE"):
        build(photos)
    dataset = build(photos, image="wo", label="was", val=0.0, test=0.5)
    assert {path for own in said(dataset).values() for path, _ in own} == {row[0] for row in ROWS}
    with pytest.raises(ConfigError, match=r"DATASET.TABLE.LABEL is 'wass', .* did you mean 'was'"):
        build(photos, image="wo", label="wass")


def test_without_a_split_one_is_drawn_and_kept(photos):
    table = photos / "mine.csv"
    table.write_text("path,label\n" + "\n".join(f"all/{row}.png,{'cat' if row < 3 else 'dog'}" for row in range(6)))
    first = build(photos, val=0.34, test=0.34)
    assert [len(first.split(split)) for split in SPLITS] == [2, 2, 2]
    assert (photos / "table_split_val0.34_test0.34_seed0.json").exists()
    assert said(build(photos, val=0.34, test=0.34)) == said(first)
    table.write_text(table.read_text().replace("all/0.png,cat", "all/0.png,dog"))
    with pytest.raises(DataError, match=r"1 are not in it or have another label now, first 'all/0.png'"):
        build(photos, val=0.34, test=0.34)


def test_images_without_a_label_are_the_pool_of_people(photos):
    (photos / "mine.csv").write_text("path,label\n" + "".join(f"all/{row}.png,\n" for row in range(6)))
    with pytest.raises(DataError, match="no image has a label; name a file of class names in CLASSES"):
        build(photos)
    (photos / "names.txt").write_text("cat\ndog\n")
    dataset = build(photos, classes="names.txt")
    assert {datum.label for datum in dataset.train} == {UNLABELED} and len(dataset.train) == 6
    assert dataset.classnames == ("cat", "dog")


@pytest.mark.parametrize("numbers", [(0, 1), ("0", "1")])
def test_numbers_are_places_in_the_list_of_class_names(photos, numbers):
    (photos / "mine.jsonl").write_text("\n".join(json.dumps(
        {"path": path, "label": numbers[place % 2], "split": split}) for place, (path, _, split) in enumerate(ROWS)))
    (photos / "names.txt").write_text("house cat\ndog\nbird\n")
    dataset = build(photos, classes="names.txt")
    assert dataset.classnames == ("house cat", "dog", "bird") and said(dataset) == SAID


def test_numbers_without_names_are_said(photos, caplog):
    """In the order of the numbers, not of their text."""
    (photos / "mine.csv").write_text("path,label,split\nall/0.png,10,train\nall/1.png,9,train\nall/2.png,9,test\n")
    assert build(photos).classnames == ("9", "10")
    assert "the classes are numbers" in caplog.text


def test_a_class_that_differs_in_case_alone_is_one(photos, caplog):
    (photos / "mine.csv").write_text("path,label,split\n" + "\n".join(
        f"all/{row}.png,{name},train" for row, name in enumerate(["cat", "Cat", "cat", "sea_lion", "sea lion"])))
    dataset = build(photos)
    assert dataset.classnames == ("cat", "sea lion")
    assert "'Cat' count as the class 'cat'" in caplog.text


def test_unknown_classes_are_listed(photos):
    (photos / "mine.csv").write_text("path,label,split\n" + "\n".join(map(",".join, ROWS)))
    (photos / "names.txt").write_text("cats\nbird\n")
    with pytest.raises(DataError, match=r"2 labels are not a class; did you mean 'cats'\?:\n  'cat'\n  'dog'"):
        build(photos, classes="names.txt")


@pytest.mark.parametrize(("text", "message"), [
    ("", "is empty"), ("path,label\n", "lists no images"), ("path,path\n1,2\n", "2 columns are called 'path'"),
    ("path,label\n,cat\nall/0.png,dog\n", "names no image in 1 rows, first row 1"),
    ("path,label\n../x.png,cat\nall/0.png,dog\n", r"1 images that are not files below .*\n  \.\./x.png"),
    ("path,label\nhttps://a.org/x.png,cat\nall/0.png,dog\n", r"1 images that are not files below .*\n  https://a.org/x.png"),
    ("path,label,split\nall/0.png,cat,trian\n", "'trian', but must hold train, val or test"),
    ("path,label,split\nall/0.png,cat,test\n", "has no train split, only test"),
    ("path,label\nall/0.png,cat\nall/1.png,cat\n", "'cat' is the only class"),
    ("path,what\nall/0.png,cat\n", "no column of labels .*; name it in DATASET.TABLE.LABEL")])
def test_what_is_wrong_with_a_table_is_one_line(photos, text, message):
    (photos / "mine.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        build(photos)


@pytest.mark.parametrize(("line", "message"), [
    ("[1]", "line 2 is not a JSON object"), ("{", "line 2 is not JSON"), ("\xff", "line 2 is not JSON"),
    ('{"path": "all/1.png", "label": [1, 2]}', r"column 'label', row 2: expected a text or a whole number, not \[1, 2\]"),
    ('{"path": "all/1.png", "label": 1.5}', "expected a text or a whole number, not 1.5")])
def test_a_line_that_is_none_is_named(photos, line, message):
    (photos / "mine.jsonl").write_text('{"path": "all/0.png", "label": 1}\n' + line, "latin-1")
    with pytest.raises(DataError, match=message):
        build(photos)


def test_missing_images_are_told_at_once(photos):
    (photos / "mine.csv").write_text("path,label,split\n" + "\n".join(map(",".join, [*ROWS, ("all/9.png", "cat", "test")])))
    cfg = setup_config([], [("DATASET.NAME", "Table"), ("DATASET.ROOT", str(photos))], (DATASETS,))
    with pytest.raises(DataError, match=r"1 image files are missing below .*\n  .*all/9.png"):
        build_dataset(cfg.DATASET, seed=1)


def test_paths_of_windows_and_absolute_ones_are_read(photos):
    rows = [("all\\0.png", "cat", "train"), (str(photos / "all" / "1.png"), "dog", "train"), *ROWS[2:]]
    (photos / "mine.csv").write_text("path,label,split\n" + "\n".join(map(",".join, rows)))
    assert said(build(photos)) == SAID


def test_hugging_face_s_metadata_lies_beside_its_images(tmp_path):
    """There is one table in each folder of a split. Names are relative to it, and tables of other names do not count."""
    for split, rows in (("train", range(4)), ("test", range(2))):
        image_files(tmp_path / split, [f"{row}.png" for row in rows])
        (tmp_path / split / "metadata.csv").write_text(
            "file_name,label\n" + "".join(f"{row}.png,{NAMES[row % 2]}\n" for row in rows))
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert said(build(tmp_path)) == {
        "train": [(f"train/{row}.png", row % 2) for row in range(4)], "val": [], "test": [("test/0.png", 0), ("test/1.png", 1)]}


def test_tables_may_be_named_by_their_split(photos):
    for split in ("train", "validation", "test"):
        own = [row for row in ROWS if row[2][:3] == split[:3]]
        (photos / f"{split}.csv").write_text("path,label\n" + "\n".join(f"{path},{label}" for path, label, _ in own))
    assert said(build(photos)) == SAID


def test_several_tables_are_asked_about(photos):
    for name in ("a.csv", "b.csv"):
        (photos / name).write_text("path,label,split\n" + "\n".join(map(",".join, ROWS)))
    with pytest.raises(DataError, match=r"several tables; name one, .* in DATASET.TABLE.FILE:\n  a.csv\n  b.csv"):
        build(photos)
    assert said(build(photos, file="a.csv")) == SAID
    for wrong in ("c.csv", "/a.csv"):
        with pytest.raises(DataError, match="no file"):
            build(photos, file=wrong)


def test_train_and_val_alone_are_train_and_test(photos, caplog):
    """ImageNet has only these. Without a test split nothing could be measured."""
    (photos / "mine.csv").write_text("path,label,split\n" + "\n".join(map(",".join, ROWS[:3])))
    assert {split: len(own) for split, own in said(build(photos)).items()} == {"train": 2, "val": 0, "test": 1}
    assert "has no test split: its val split is taken as test" in caplog.text


@needs_pyarrow
def test_parquet_files_as_push_to_hub_writes_them(tmp_path):
    """There are several parts, a class name without images, and images in the file whose names are their ids."""
    write_parquet(tmp_path / "data" / "train-00000-of-00002-0a.parquet", range(5))
    write_parquet(tmp_path / "data" / "train-00001-of-00002-1b.parquet", range(5, 8))
    write_parquet(tmp_path / "data" / "test-00000-of-00001-2c.parquet", range(3))
    dataset = build(tmp_path)
    assert dataset.classnames == NAMES
    assert said(dataset) == {"train": [(f"train/{row}.png", row % 2) for row in range(8)], "val": [],
                             "test": [(f"test/{row}.png", row % 2) for row in range(3)]}
    assert [read_bytes(file) for file in dataset.files("train")] == [encoded(row) for row in range(8)]


@needs_pyarrow
@pytest.mark.parametrize("layout", ["dictionary", "one"])
def test_folders_as_save_to_disk_writes_them(tmp_path, layout):
    """Cache files that `datasets` leaves next to them do not count."""
    write_saved(tmp_path / "train" if layout == "dictionary" else tmp_path / "saved", range(7), "train")
    root = tmp_path / "saved"
    if layout == "dictionary":
        root = tmp_path
        write_saved(tmp_path / "validation", range(4))
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    dataset = build(root, val=0.0)
    assert dataset.classnames == NAMES
    rows = {datum.path: dataset.place(datum.path) for split in SPLITS for datum in dataset.split(split)}
    assert {path: read_bytes(file) for path, file in rows.items() if path.startswith("train")} == {
        f"train/{row}.png": encoded(row) for row in range(7)}
    (next(root.rglob("data-00001-of-00002.arrow"))).unlink()
    with pytest.raises(DataError, match=r"names data-00001-of-00002.arrow, which is not there"):
        build(root)


@needs_pyarrow
def test_columns_of_plain_bytes_and_names_are_read(pyarrow, tmp_path):
    """They need no Hugging Face metadata. A column of paths next to the bytes is not the image."""
    import pyarrow.parquet as pq

    table = pyarrow.table({"image": [encoded(row) for row in range(6)], "label": ["b", "a"] * 3})
    pq.write_table(table, tmp_path / "x.parquet")
    dataset = build(tmp_path, val=0.0, test=0.34)
    assert dataset.classnames == ("a", "b")
    assert sorted(datum.path for split in SPLITS for datum in dataset.split(split)) == [f"{row:06d}" for row in range(6)]


@needs_pyarrow
def test_parquet_files_may_name_image_files(pyarrow, photos):
    """Names may be texts, or Hugging Face images whose bytes are not included."""
    import pyarrow.parquet as pq

    names, labels = [f"all/{row}.png" for row in range(4)], [0, 1, 0, 1]
    pq.write_table(pyarrow.table({"image": [{"bytes": None, "path": name} for name in names], "label": labels},
                                 metadata=huggingface()), photos / "train.parquet")
    pq.write_table(pyarrow.table({"image": ["all/4.png", "all/5.png"], "label": [0, 1]}, metadata=huggingface()),
                   photos / "test.parquet")
    dataset = build(photos)
    assert said(dataset) == {"train": list(zip(names, labels, strict=True)), "val": [],
                             "test": [("all/4.png", 0), ("all/5.png", 1)]}
    assert not dataset.parts


@needs_pyarrow
def test_names_that_stand_twice_or_lead_elsewhere_are_made_ids(pyarrow, tmp_path):
    import pyarrow.parquet as pq

    table = arrow_table(range(4)).to_pydict()
    for row, name in enumerate(["/home/me/a.png", "..\\a.png", "home/me/a.png", None]):
        table["image"][row]["path"] = name
    pq.write_table(pyarrow.table(table), tmp_path / "train.parquet")
    write_parquet(tmp_path / "test.parquet", range(2), metadata={})
    assert [datum.path for datum in build(tmp_path).train] == [
        "train/home/me/a.png", "train/a.png", "train/home/me/a.png (2)", "train/000003"]


@needs_pyarrow
def test_a_test_split_without_labels_is_left_out(pyarrow, tmp_path, caplog):
    """Competitions have such splits: every label is -1."""
    import pyarrow.parquet as pq

    write_parquet(tmp_path / "train.parquet", range(4))
    write_parquet(tmp_path / "validation.parquet", range(2))
    table = arrow_table(range(3))
    pq.write_table(table.set_column(1, "label", pyarrow.array([-1] * 3)), tmp_path / "test.parquet")
    assert [len(build(tmp_path).split(split)) for split in SPLITS] == [4, 0, 2]
    assert "3 val and test images have no label and are left out" in caplog.text


@needs_pyarrow
def test_damaged_files_are_named(tmp_path):
    write_parquet(tmp_path / "train.parquet", range(4))
    content = (tmp_path / "train.parquet").read_bytes()
    for damaged in (b"", content[:-20], b"PAR1" + b"x" * 40):
        (tmp_path / "train.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot read .*train\.parquet"):
            build(tmp_path)


@needs_pyarrow
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_damage_anywhere_in_a_file_is_one_line_or_one_image(tmp_path, kind):
    """400 files in which a few bytes are changed. Exceptions of pyarrow must not reach the user."""
    write_parquet(tmp_path / "whole.parquet", range(10))
    write_saved(tmp_path / "saved", range(10))
    whole = (tmp_path / "whole.parquet" if kind == "parquet" else tmp_path / "saved" / "data-00000-of-00002.arrow").read_bytes()
    rng, n_refused = np.random.default_rng(0), 0
    for number in range(400):
        content = np.frombuffer(whole, np.uint8).copy()
        content[rng.integers(0, len(content), rng.integers(1, 8))] = rng.integers(0, 256)
        (tmp_path / f"{number}.{kind}").write_bytes(content.tobytes())
        try:
            table = read_table(tmp_path / f"{number}.{kind}")
            for place in table.places("image"):
                with suppress(DataError):
                    read_bytes(place)
            table.values("label")
        except DataError as error:
            assert "\n" not in str(error) and str(tmp_path) in str(error)
            n_refused += 1
    assert 0 < n_refused < 400


@needs_pyarrow
def test_images_in_the_file_and_beside_it_may_be_mixed(pyarrow, photos):
    """This happens if a few images were added by their paths, perhaps in later row groups."""
    import pyarrow.parquet as pq

    images = [{"bytes": encoded(row), "path": f"in_{row}.png"} if row % 2 else {"bytes": None, "path": f"all/{row}.png"}
              for row in range(6)]
    pq.write_table(pyarrow.table({"image": images, "label": ["a", "b", "a"] * 2}), photos / "train.parquet", row_group_size=3)
    dataset = build(photos, val=0.0, test=0.34)
    assert {path for own in said(dataset).values() for path, _ in own} == {
        f"train/in_{row}.png" if row % 2 else f"all/{row}.png" for row in range(6)}
    assert all(read_bytes(dataset.place(f"train/in_{row}.png")) == encoded(row) for row in (1, 3, 5))


@needs_pyarrow
def test_images_in_a_table_are_checked_as_files_are(tmp_path):
    """Row 42: copies, leaks and damage have the names of the images."""
    write_parquet(tmp_path / "train.parquet", [0, 1, 2, 2])
    write_parquet(tmp_path / "test.parquet", [1])
    report = check(build(tmp_path), n_threads=3)
    assert report["leaks"] == ["train train/1.png = test test/1.png"]
    assert report["duplicates"] == ["train train/2.png = train train/2.png (2)"]
    assert report["n_files"] == 5 and not report["corrupt"]


@needs_pyarrow
@pytest.mark.parametrize("n_workers", [0, 2])
def test_images_in_a_table_are_read_by_other_processes(tmp_path, n_workers):
    """They may be in any order and in any row group, while this process has one of them open."""
    write_parquet(tmp_path / "train.parquet", range(20))
    write_saved(tmp_path / "saved", range(20))
    table = build(tmp_path, file="train.parquet", val=0.0, test=0.1)
    saved = build(tmp_path / "saved", val=0.0, test=0.1)
    rows = [7, 0, 15, 3, 3, 11]
    for files in ([table.place(f"train/{row}.png") for row in rows], [saved.place(f"{row}.png") for row in rows]):
        read_bytes(files[0])
        found = torch.cat(list(image_batches(files, VIEW, batch_size=2, n_workers=n_workers)))
        assert torch.equal(found, torch.stack([VIEW(decode(encoded(row), "")) for row in rows]))


@needs_pyarrow
def test_memory_holds_a_row_group_and_not_the_table(pyarrow, tmp_path):
    """This covers pyarrow's own memory and Python's."""
    import pyarrow.parquet as pq

    n_bytes, n_rows = 200_000, 60
    table = pyarrow.table({"image": [bytes([row]) * n_bytes for row in range(n_rows)], "label": [0, 1] * (n_rows // 2)})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=2, compression="none", use_dictionary=False)
    del table
    write_parquet(tmp_path / "test.parquet", range(2), metadata={})
    before = pyarrow.total_allocated_bytes()
    dataset = build(tmp_path)
    tracemalloc.start()
    assert pyarrow.total_allocated_bytes() - before < 2 * n_bytes
    for row, file in enumerate(dataset.files("train")):
        assert read_bytes(file) == bytes([row]) * n_bytes
        assert pyarrow.total_allocated_bytes() - before < 10 * n_bytes
    assert tracemalloc.get_traced_memory()[1] < 5 * n_bytes
    tracemalloc.stop()


def test_without_pyarrow_the_command_is_named(tmp_path, monkeypatch):
    import sys

    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"Parquet files need the package pyarrow, .*: pip install -r requirements-data.txt"):
        build(tmp_path)
