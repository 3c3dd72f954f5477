"""ImageFolder: every layout of a person's own images."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest

import datasets  # noqa: F401  registers the data sets
from dassl.config.setup import setup_config
from dassl.data import draws, formats
from dassl.data.build import load_dataset
from dassl.data.dataset import DATASETS, SPLITS, UNLABELED
from dassl.data.digests import ImageFiles
from dassl.utils.errors import ConfigError, DataError, UserError
from dassl.utils.files import write_json


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def photos(tmp_path) -> Path:
    """Ten images in each of two class folders."""
    return touch(tmp_path / "photos", *(f"{name}/{row}.jpg" for name in ("cat", "dog") for row in range(10)))


@pytest.fixture
def without_plug_ins(monkeypatch):
    """Pretend that no package for further image formats is installed."""
    monkeypatch.setattr(formats, "is_installed", lambda module: False)
    formats.image_suffixes.cache_clear()
    yield
    monkeypatch.undo()
    formats.image_suffixes.cache_clear()


@pytest.fixture
def loose(tmp_path) -> Path:
    """Return twenty images without class folders, and a file of class names."""
    root = touch(tmp_path / "loose", *(f"img {row:02d}.png" for row in range(18)), "more/18.png", "more/19.png")
    (root / "names.txt").write_text("sea lion\nbear\n\nempty class\n")
    return root


def build(root: Path, **parameters):
    return DATASETS["ImageFolder"].build(root, **parameters)


def sizes(dataset) -> tuple[int, int, int]:
    return tuple(len(dataset.split(split)) for split in SPLITS)


def test_one_flag_makes_a_folder_of_folders_a_data_set(photos):
    """The command line does it without any YAML."""
    cfg = setup_config([], [("DATASET.NAME", "ImageFolder"), ("DATASET.ROOT", str(photos))], (DATASETS,))
    dataset = load_dataset(cfg.DATASET)
    assert dataset.classnames == ("cat", "dog")
    assert sizes(dataset) == (10, 4, 6)
    assert all(dataset.classnames[datum.label] == datum.path.split("/")[0] for datum in dataset.train)
    assert all(path.is_file() for split in SPLITS for path in dataset.files(split))


def test_the_split_is_stored_and_stays(photos):
    first = build(photos)
    assert (photos / "split_val0.2_test0.3_seed0.json").exists()
    assert build(photos) == first
    assert build(photos, split_seed=1).test != first.test
    assert sizes(build(photos, val=0.0, test=0.5)) == (10, 0, 10)


def test_images_that_came_after_the_split_stop_the_run(photos):
    build(photos)
    touch(photos, "cat/new.jpg")
    with pytest.raises(DataError, match=r"1 are not in it or have another label now, first 'cat/new\.jpg'"):
        build(photos)


def test_a_class_folder_that_came_after_the_split_is_named(photos):
    """Row 3: not "label 1 is both dog and chair"; the earlier split stays as it is."""
    build(photos)
    touch(photos, "chair/1.jpg", "chair/2.jpg")
    with pytest.raises(DataError, match=r"split_val0\.2_.*json was drawn before there were images of 'chair'; move"):
        build(photos)


def test_a_class_folder_that_is_gone_is_named(photos):
    touch(photos, "elk/1.jpg", "elk/2.jpg")
    build(photos)
    shutil.rmtree(photos / "cat")
    with pytest.raises(DataError, match=r"holds images of 'cat', which is no class now; bring the folder back"):
        build(photos)


def test_a_renamed_class_folder_is_named(photos):
    build(photos)
    (photos / "cat").rename(photos / "cats")
    with pytest.raises(DataError, match=r"images of 'cat', which is no class now, and none of 'cats': if .* its old name"):
        build(photos)


def test_a_class_folder_with_folders_of_images_that_came_after_the_split_is_named(photos):
    """Row 3: otherwise it would be a class without images. An empty folder is none."""
    first = build(photos)
    (photos / "chair").mkdir()
    assert [datum.path for datum in build(photos).train] == [datum.path for datum in first.train]
    touch(photos, "chair/deep/1.jpg")
    with pytest.raises(DataError, match=r"was drawn before there were images of 'chair'"):
        build(photos)


def test_images_of_a_drawn_split_that_are_gone_are_named_with_a_way_out(photos):
    """Such as damaged ones that somebody has removed, as a message about them asks for. Cached features still serve."""
    first = build(photos)
    gone = first.test[0].path
    (photos / gone).unlink()
    assert build(photos) == first
    with pytest.raises(DataError, match=rf"1 image files are missing below .*split that was drawn .*json\):\n  .*{gone}"):
        ImageFiles(build(photos))
    next(photos.glob("split_*.json")).unlink()
    assert gone not in {datum.path for split in SPLITS for datum in build(photos).split(split)}


def test_a_stored_split_goes_by_names_whatever_the_order_of_the_classes(photos):
    first = build(photos)
    (photos / "c.yaml").write_text("dog: dog\nnone: none\ncat: cat\n")
    second = build(photos, classes="c.yaml")
    for split in SPLITS:
        assert [datum.path for datum in first.split(split)] == [datum.path for datum in second.split(split)]
    assert {(datum.path[:3], datum.label) for datum in second.train} == {("dog", 0), ("cat", 2)}


def test_a_given_split_file_alone_says_what_the_set_holds(photos):
    write_json(photos / "mine.json", {"train": [["dog/1.jpg", 1, "hound"]], "val": [], "test": [["cat/2.jpg", 0, "cat"]]})
    dataset = build(photos, split="mine.json")
    assert sizes(dataset) == (1, 0, 1)
    assert dataset.classnames == ("cat", "hound")


def test_folders_named_train_and_test_are_the_split(tmp_path):
    """A class may be missing in one of them; nothing is drawn."""
    root = touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "test/dog/2.jpg", "val/cat/3.jpg")
    dataset = build(root)
    assert [(datum.path, datum.label) for datum in (*dataset.train, *dataset.val, *dataset.test)] == [
        ("train/cat/1.jpg", 0), ("train/dog/1.jpg", 1), ("val/cat/3.jpg", 0), ("test/dog/2.jpg", 1)]
    assert list(root.glob("*.json")) == []


@pytest.mark.parametrize("name", ["valid", "Validation"])
def test_a_validation_folder_may_have_other_names(tmp_path, name):
    """With train and test it must not become a data set of three classes called train, valid and test."""
    dataset = build(touch(tmp_path, "Train/cat/1.jpg", f"{name}/cat/3.jpg", "test/cat/2.jpg", "test/dog/4.jpg"))
    assert dataset.classnames == ("cat", "dog")
    assert [dataset.split(split)[0].path for split in SPLITS] == ["Train/cat/1.jpg", f"{name}/cat/3.jpg", "test/cat/2.jpg"]


@pytest.mark.parametrize("folders", [("train", "val"), ("train", "valid", "val", "test"), ("train", "test", "extra")])
def test_folders_that_are_half_a_split_are_no_classes(tmp_path, folders):
    """They are classes only if a file of class names lists them."""
    root = touch(tmp_path, *(f"{folder}/{row}.jpg" for folder in folders for row in range(9)))
    with pytest.raises(DataError, match="for a given split, nothing but train, test and perhaps val"):
        build(root)
    (root / "classes.txt").write_text("\n".join(folders))
    assert build(root, classes="classes.txt").classnames == folders


def labels_of(dataset, split: str) -> dict[str, int]:
    return {datum.path: datum.label for datum in dataset.split(split)}


@pytest.mark.parametrize("val", ["val", "Valid", "validation"])
def test_train_and_val_alone_are_train_and_test(tmp_path, caplog, val):
    """ImageNet has them. A line says so."""
    dataset = build(touch(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", f"{val}/cat/3.jpg", f"{val}/dog/4.jpg"))
    assert sizes(dataset) == (2, 0, 2) and dataset.classnames == ("cat", "dog")
    assert f"has no test folder: {val} is taken as test, and there is no val" in caplog.text


def test_train_alone_is_no_class(tmp_path):
    """Its folders are the classes, and a split is drawn."""
    dataset = build(touch(tmp_path, *(f"train/{name}/{row}.jpg" for name in ("cat", "dog") for row in range(10))))
    assert sizes(dataset) == (10, 4, 6) and dataset.classnames == ("cat", "dog")
    assert dataset == build(tmp_path)


def test_a_class_in_another_case_is_the_same(tmp_path, caplog):
    """Otherwise test images of one spelling would count as errors of the other. The spelling in train is used."""
    dataset = build(touch(tmp_path, "train/Sea Lion/1.jpg", "train/cat/2.jpg", "test/sea_lion/3.jpg", "test/cat/4.jpg",
                          "test/bird/5.jpg"))
    assert dataset.classnames == ("Sea Lion", "bird", "cat")
    assert labels_of(dataset, "test") == {"test/sea_lion/3.jpg": 0, "test/cat/4.jpg": 2, "test/bird/5.jpg": 1}
    assert "test/sea_lion counts as the class 'Sea Lion'" in caplog.text


def test_classes_of_one_folder_that_differ_in_case_stay_two(tmp_path):
    """Their names differ on purpose."""
    dataset = build(touch(tmp_path, "train/A/1.jpg", "train/a/2.jpg", "test/A/3.jpg", "test/a/4.jpg"))
    assert dataset.classnames == ("A", "a") and labels_of(dataset, "test") == {"test/A/3.jpg": 0, "test/a/4.jpg": 1}


@pytest.mark.parametrize("inbox", ["inbox", "Unsorted", "to_label"])
def test_an_inbox_beside_classes_is_the_pool_of_people(photos, caplog, inbox):
    """Row 41: at any depth; it is not taken for a class, whose images would be trained on."""
    touch(photos, f"{inbox}/a.jpg", f"{inbox}/May/b.jpg")
    dataset = build(photos)
    assert dataset.classnames == ("cat", "dog") and sizes(dataset) == (12, 4, 6)
    assert [datum.path for datum in dataset.train if datum.label == UNLABELED] == [f"{inbox}/May/b.jpg", f"{inbox}/a.jpg"]
    assert f"2 images in {inbox}/ are not sorted into classes: they wait for people" in caplog.text
    assert "left out" not in caplog.text
    touch(photos, f"{inbox}/c.jpg")
    assert sizes(build(photos)) == (13, 4, 6)


@pytest.mark.parametrize("place", ["inbox", "train/inbox"])
def test_an_inbox_beside_a_given_split_is_too(tmp_path, place):
    root = touch(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg", "test/dog/4.jpg", f"{place}/5.jpg")
    dataset = build(root)
    assert dataset.classnames == ("cat", "dog")
    assert labels_of(dataset, "train") == {"train/cat/1.jpg": 0, "train/dog/2.jpg": 1, f"{place}/5.jpg": UNLABELED}


def test_an_inbox_is_a_class_where_somebody_has_said_so(photos, tmp_path):
    """A file of class names, an earlier split in which it was a class, or the test folder may say so."""
    touch(photos, *(f"inbox/{row}.jpg" for row in range(10)))
    (photos / "names.txt").write_text("cat\ndog\ninbox\n")
    named = build(photos, classes="names.txt")
    assert named.classnames == ("cat", "dog", "inbox") and sizes(named) == (15, 6, 9)
    assert build(photos) == named
    root = touch(tmp_path / "split", "train/cat/1.jpg", "train/inbox/2.jpg", "test/cat/3.jpg", "test/inbox/4.jpg")
    assert build(root).classnames == ("cat", "inbox")


def test_a_class_may_be_called_train(tmp_path):
    """One folder with such a name is not a split."""
    assert build(touch(tmp_path, *(f"{name}/{row}.jpg" for name in ("bus", "train") for row in range(9)))).classnames == (
        "bus", "train")


def test_a_given_split_without_class_folders_is_refused(tmp_path):
    with pytest.raises(DataError, match="train and test must hold a folder for each class"):
        build(touch(tmp_path, "train/1.jpg", "valid/2.jpg", "test/3.jpg"))


@pytest.mark.parametrize("layout", ["classes", "split", "table"])
def test_files_that_are_left_out_are_counted(tmp_path, caplog, layout, without_plug_ins):
    """These are images too deep or right in the root, and files with other suffixes, but not notes or whole folders."""
    root = touch(tmp_path, *(f"{part}{name}/{row}.jpg" for part in (("train/", "test/") if layout == "split" else ("",))
                             for name in ("cat", "dog") for row in range(9)), "notes.txt")
    words = {}
    if layout == "table":
        (root / "names.txt").write_text("heron\negret\nibis")
        words = {"classes": "names.txt"}
    build(root, **words)
    assert not caplog.records
    part = "train/" if layout == "split" else ""
    touch(root, f"{part}cat/a.HEIC", f"{part}dog/b.heic", f"{part}cat/c", f"{part}cat/young/1.jpg", f"{part}0.png",
          f"{part}cat/.d.heic")
    build(root, **words)
    lines = [record.getMessage().partition(": ")[2] for record in caplog.records]
    deep = ["2 images are left out, as they do not lie right in the folder of a class"]
    assert lines == deep * (layout != "table") + [
        "2 images are left out, as what reads them is not installed; pip install pillow-heif: "
        f"{part}cat/a.HEIC, {part}dog/b.heic",
        "1 files are left out, as their suffix is that of no image that is read: 1 none"]


@pytest.mark.parametrize(("file", "content", "expected"), [
    ("c.txt", "dog\ncat\nbird\n", ("dog", "cat", "bird")), ("c.yaml", "[dog, cat]", ("dog", "cat")),
    ("c.yml", "dog: golden retriever\ncat: house cat\n", ("golden retriever", "house cat"))])
def test_a_file_of_class_names_gives_their_order_and_names(photos, file, content, expected):
    """Text, a YAML list, or a YAML mapping of folders to names; an empty class keeps its place."""
    (photos / file).write_text(content)
    dataset = build(photos, classes=file)
    assert dataset.classnames == expected
    assert {datum.label for datum in dataset.train if datum.path.startswith("dog")} == {0}


def test_a_folder_that_is_no_class_is_an_error_with_the_nearest(photos):
    (photos / "c.txt").write_text("cat\ndogs\n")
    with pytest.raises(DataError, match="dog is not in the file of class names; did you mean 'dogs'"):
        build(photos, classes="c.txt")


def test_images_without_labels_are_all_pool(loose):
    dataset = build(loose, classes="names.txt")
    assert sizes(dataset) == (20, 0, 0)
    assert {datum.label for datum in dataset.train} == {UNLABELED}
    assert dataset.classnames == ("sea lion", "bear", "empty class")
    assert "more/18.png" in {datum.path for datum in dataset.train}


def write_labels(root: Path, labels: dict[str, str], header: str = "path,label") -> None:
    (root / "labels.csv").write_text("\n".join([header, *(f"{path},{label}" for path, label in labels.items())]) + "\n")


def test_labeled_images_are_split_and_the_others_are_pool(loose):
    write_labels(loose, {f"img {row:02d}.png": ("bear", "sea lion")[row % 2] for row in range(10)})
    dataset = build(loose, classes="names.txt", labels="labels.csv")
    assert sizes(dataset) == (14, 2, 4)
    assert sum(datum.label == UNLABELED for datum in dataset.train) == 10
    assert all(datum.label == (int(datum.path[4:6]) % 2 == 0) for datum in dataset.test)


def test_labels_that_come_later_go_to_train_and_leave_the_split_as_it_was(loose):
    labels = {f"img {row:02d}.png": "bear" for row in range(10)}
    write_labels(loose, labels)
    before = build(loose, classes="names.txt", labels="labels.csv")
    write_labels(loose, {**labels, "more/18.png": "sea lion"})
    after = build(loose, classes="names.txt", labels="labels.csv")
    assert (after.val, after.test) == (before.val, before.test)
    assert [datum.label for datum in after.train if datum.path == "more/18.png"] == [0]


def test_a_label_that_changed_stops_the_run(loose):
    write_labels(loose, {f"img {row:02d}.png": "bear" for row in range(10)})
    build(loose, classes="names.txt", labels="labels.csv")
    write_labels(loose, {f"img {row:02d}.png": "sea lion" for row in range(10)})
    with pytest.raises(DataError, match="10 are not in it or have another label now"):
        build(loose, classes="names.txt", labels="labels.csv")


def test_a_label_that_was_deleted_is_no_label_whatever_the_split_says(loose, caplog):
    """Row 25: the label file wins. An image that gets a label again returns to its old place."""
    labels = {f"img {row:02d}.png": ("bear", "sea lion")[row % 2] for row in range(10)}
    write_labels(loose, labels)
    before = build(loose, classes="names.txt", labels="labels.csv")
    gone = [before.split(split)[0].path for split in SPLITS]
    write_labels(loose, {path: name for path, name in labels.items() if path not in gone})
    after = build(loose, classes="names.txt", labels="labels.csv")
    assert sizes(after) == (16, 1, 3) and sum(datum.label == UNLABELED for datum in after.train) == 13
    assert {datum.path for datum in after.train if datum.label == UNLABELED} >= set(gone)
    assert "3 images of" in caplog.text and "have no label any more and count as unlabeled again" in caplog.text
    write_labels(loose, labels)
    assert build(loose, classes="names.txt", labels="labels.csv") == before


def test_an_image_that_was_deleted_with_its_label_is_gone(loose):
    labels = {f"img {row:02d}.png": "bear" for row in range(10)}
    write_labels(loose, labels)
    gone = build(loose, classes="names.txt", labels="labels.csv").test[0].path
    (loose / gone).unlink()
    write_labels(loose, {path: name for path, name in labels.items() if path != gone})
    dataset = build(loose, classes="names.txt", labels="labels.csv")
    assert gone not in {datum.path for split in SPLITS for datum in dataset.split(split)}


@pytest.mark.parametrize("names", [["Cat", "DOG"], ["ca\u0301t", "hot dog"]])
def test_folders_may_differ_from_class_names_in_what_means_nothing(tmp_path, names):
    """Case, underscores and Unicode form may differ. No label is lost, and the list's spelling is used."""
    folders = [unicodedata.normalize("NFC", name).lower().replace(" ", "_") for name in names]
    root = touch(tmp_path, *(f"{folder}/{row}.jpg" for folder in folders for row in range(10)))
    (root / "c.txt").write_text("\n".join(names[::-1]))
    dataset = build(root, classes="c.txt")
    assert dataset.classnames == tuple(names[::-1]) and sizes(dataset) == (10, 4, 6)
    assert all(datum.label == (datum.path.split("/")[0] == folders[0]) for datum in dataset.train)


def test_two_folders_of_one_class_are_refused(photos):
    touch(photos, "Cat/1.jpg")
    (photos / "c.txt").write_text("CAT\ndog")
    with pytest.raises(DataError, match="the folders 'Cat' and 'cat' are both the class 'CAT'"):
        build(photos, classes="c.txt")


@pytest.mark.parametrize(("names", "message"), [
    (["cats", "dogs"], "did you mean 'cats'"), (["catt", "x", "y"], "did you mean 'catt'"),
    (["feline", "canine"], "mapping of folders")])
def test_folders_of_images_that_no_class_name_fits_are_an_error(photos, names, message):
    """Row 25: their labels would vanish, and people be asked for images that are sorted already."""
    (photos / "c.txt").write_text("\n".join(names))
    with pytest.raises(DataError, match=f"holds images, but no folder is one of the class names; .*{message}"):
        build(photos, classes="c.txt")
    (photos / "labels.csv").write_text("path,label\n")
    assert sizes(build(photos, classes="c.txt", labels="labels.csv")) == (20, 0, 0)


def test_folders_that_are_no_classes_are_searched_for_images(tmp_path):
    """Cameras sort by year, for example. There may be any number of such folders."""
    root = touch(tmp_path, "2021/1.jpg", "2022/2.jpg", "100_CANON/3.jpg")
    (root / "c.txt").write_text("heron\negret\nibis\nstork")
    assert sizes(build(root, classes="c.txt")) == (3, 0, 0)
    shutil.rmtree(root / "100_CANON")
    (root / "c.txt").write_text("heron\negret")
    assert sizes(build(root, classes="c.txt")) == (2, 0, 0)


@pytest.mark.parametrize("layout", ["folders", "list"])
def test_one_class_alone_is_refused_with_the_reason(tmp_path, layout):
    """Usually it is the folder that holds all images."""
    root = touch(tmp_path, *(f"images/{row}.jpg" for row in range(9)))
    (root / "c.txt").write_text("heron")
    with pytest.raises(DataError, match=r"'(images|heron)' is the only class, so that there is nothing to tell apart"):
        build(root, **{"classes": "c.txt", "labels": "c.csv"} if layout == "list" and (root / "c.csv").write_text("path,label")
              else {})


@pytest.mark.parametrize("layout", ["folders", "split"])
def test_class_names_with_blanks_at_their_ends_are_refused(photos, layout):
    touch(photos, "elk /1.jpg")
    write_json(photos / "mine.json", {"train": [["dog/1.jpg", 0, " dog"], ["cat/1.jpg", 1, "cat"]], "val": [], "test": []})
    with pytest.raises(DataError, match=r"the class name '(elk | dog)' has blanks at its ends"):
        build(photos, **({"split": "mine.json"} if layout == "split" else {}))


def test_a_root_that_cannot_be_written_needs_a_cache_alone(photos, tmp_path, monkeypatch):
    """Row 11: the drawn split and its lock go there, and stay there; a split that the root holds is read without a lock."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != photos)
    before = sorted(photos.rglob("*"))
    first = build(photos, cache=tmp_path / "cache")
    assert sorted(photos.rglob("*")) == before and list((tmp_path / "cache").glob("*_split_val0.2_test0.3_seed0.json"))
    monkeypatch.undo()
    assert build(photos, cache=tmp_path / "cache") == first and sorted(photos.rglob("*")) == before
    drawn = build(photos)
    assert (photos / "split_val0.2_test0.3_seed0.json").exists()
    monkeypatch.setattr(draws, "lock", lambda *_, **__: pytest.fail("it was locked"))
    assert build(photos, cache=tmp_path / "cache") == drawn == first


def test_a_cache_that_cannot_be_written_either_is_named(photos, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"cannot write /proc/none/.*CACHE_DIR names another"):
        build(photos, cache=Path("/proc/none"))


@pytest.mark.parametrize(("parameters", "error", "message"), [
    ({"val": -0.5}, ConfigError, "must not be negative"), ({"val": 0.5, "test": 0.5}, ConfigError, "leave nothing to train on"),
    ({"classes": "nowhere.txt"}, ConfigError, "IMAGEFOLDER.CLASSES names the file 'nowhere.txt', which is neither in"),
    ({"labels": "names.txt"}, DataError, "LABELS goes with CLASSES"), ({}, DataError, "make a folder for each class")])
def test_what_cannot_work_says_what_would(loose, parameters, error, message):
    shutil.rmtree(loose / "more")
    with pytest.raises(error, match=message):
        build(loose, **parameters)


def test_a_root_that_is_missing_is_named(tmp_path):
    (tmp_path / "file").touch()
    for name, words in (("nowhere", {}), ("nowhere", {"classes": "names.txt"}), ("file", {})):
        with pytest.raises(DataError, match=rf"cannot read the folder .*{name}.*--root"):
            build(tmp_path / name, **words)
