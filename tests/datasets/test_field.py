"""The eleven data sets of the field, on small trees in the published layout and on the real split files."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

import datasets  # noqa: F401  registers the data sets
from dassl.data.dataset import DATASETS, SPLITS, Datum
from dassl.data.splits import folder_rows
from dassl.utils.errors import DataError
from dassl.utils.files import write_json
from datasets.caltech101 import CLASSNAMES, SKIPPED
from datasets.sources import SOURCES

TEMPLATES = {
    "Caltech101": "a photo of a {}.", "DTD": "{} texture.", "EuroSAT": "a centered satellite photo of {}.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.", "Flowers102": "a photo of a {}, a type of flower.",
    "Food101": "a photo of {}, a type of food.", "ImageNet": "a photo of a {}.",
    "OxfordPets": "a photo of a {}, a type of pet.",
    "StanfordCars": "a photo of a {}.", "SUN397": "a photo of a {}.", "UCF101": "a photo of a person doing {}."}
SPLIT_FILES = {  # the split file and the image folder of each set that has one
    "Caltech101": ("caltech-101/split_zhou_Caltech101.json", "caltech-101/101_ObjectCategories"),
    "DTD": ("dtd/split_zhou_DescribableTextures.json", "dtd/images"),
    "EuroSAT": ("eurosat/split_zhou_EuroSAT.json", "eurosat/2750"),
    "Flowers102": ("oxford_flowers/split_zhou_OxfordFlowers.json", "oxford_flowers/jpg"),
    "Food101": ("food-101/split_zhou_Food101.json", "food-101/images"),
    "OxfordPets": ("oxford_pets/split_zhou_OxfordPets.json", "oxford_pets/images"),
    "StanfordCars": ("stanford_cars/split_zhou_StanfordCars.json", "stanford_cars"),
    "SUN397": ("sun397/split_zhou_SUN397.json", "sun397/SUN397"),
    "UCF101": ("ucf101/split_zhou_UCF101.json", "ucf101/UCF-101-midframes")}
REAL = {"Caltech101": (4128, 1649, 2465), "DTD": (2820, 1128, 1692), "EuroSAT": (13500, 5400, 8100),
        "Flowers102": (4093, 1633, 2463)}


def touch(folder: Path, *names: str) -> None:
    paths = [os.path.join(folder, name) for name in names]
    for parent in set(map(os.path.dirname, paths)):
        os.makedirs(parent, exist_ok=True)
    for path in paths:
        os.close(os.open(path, os.O_CREAT))


def write_lines(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def build(name: str, root: Path, **parameters):
    return DATASETS[name].build(root, **parameters)


def by_path(dataset) -> dict[str, str]:
    """Class names by path, over all splits."""
    return {datum.path: dataset.classnames[datum.label] for split in SPLITS for datum in dataset.split(split)}


def sizes(dataset) -> tuple[int, int, int]:
    return tuple(len(dataset.split(split)) for split in SPLITS)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_set_of_the_field_is_there_with_its_source(name):
    assert name in DATASETS
    assert name in SOURCES


@pytest.mark.parametrize("name", SPLIT_FILES)
def test_a_split_file_alone_says_what_the_set_holds(tmp_path, name):
    """Paths, labels and names are taken from it unchanged. The template is CoOp's."""
    file, image_dir = SPLIT_FILES[name]
    write_json(tmp_path / file, {"train": [["x/b.jpg", 1, "second_class"], ["x/a.jpg", 0, "First"]],
                                 "val": [["x/c.jpg", 0, "First"]], "test": [["x/d.jpg", 1, "second_class"]]})
    dataset = build(name, tmp_path)
    assert [(datum.path, datum.label) for datum in dataset.train] == [(f"{image_dir}/x/b.jpg", 1), (f"{image_dir}/x/a.jpg", 0)]
    assert sizes(dataset) == (2, 1, 1)
    assert dataset.classnames == ("First", "second_class")
    assert (dataset.name, dataset.template) == (name, TEMPLATES[name])


@pytest.mark.parametrize("name", SPLIT_FILES)
def test_a_missing_split_file_stops_the_run_and_says_where_it_is_to_be_had(tmp_path, name):
    (tmp_path / SPLIT_FILES[name][0]).parent.mkdir(parents=True)
    with pytest.raises(DataError, match=rf"{SPLIT_FILES[name][0]} is missing.*DATASETS.md"):
        build(name, tmp_path)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_missing_folder_is_an_error_that_names_it(tmp_path, name):
    with pytest.raises(DataError, match=f"{SOURCES[name].folder} is not a folder"):
        build(name, tmp_path)


@pytest.mark.parametrize("name", REAL)
def test_real_split_files_have_the_published_sizes(real_data, tmp_path, name):
    file = SPLIT_FILES[name][0]
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).symlink_to(real_data / "splits" / Path(file).name)
    dataset = build(name, tmp_path)
    assert sizes(dataset) == REAL[name] == SOURCES[name].sizes
    assert set(dataset.labels("train").tolist()) == set(range(len(dataset.classnames)))


@pytest.mark.parametrize("name", REAL)
def test_real_split_files_are_those_that_the_downloader_verifies(real_data, name):
    file = real_data / "splits" / Path(SPLIT_FILES[name][0]).name
    digest = next(download.digest for download in SOURCES[name].downloads if download.file == file.name)
    assert digest == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def layout_of(split_file: Path, image_dir: Path) -> dict:
    """Make the empty images that a real split file names, and return its content."""
    content = json.loads(split_file.read_text())
    touch(image_dir, *(path for rows in content.values() for path, _, _ in rows))
    return content


@pytest.mark.parametrize(("name", "extra"), [("DTD", []), ("EuroSAT", []), ("Caltech101", [
    "BACKGROUND_Google/a.jpg", "Faces_easy/a.jpg", "ant/notes.txt"])])
def test_the_drawing_rule_gives_the_real_labels_names_and_sizes_of_every_class(real_data, tmp_path, name, extra):
    """The list of files is enough. Only which image is in which split differs from the published file."""
    file, image_dir = SPLIT_FILES[name]
    content = layout_of(real_data / "splits" / Path(file).name, tmp_path / image_dir)
    touch(tmp_path / image_dir, *extra)
    dataset = build(name, tmp_path, split="drawn")
    assert {path: dataset.classnames.index(label) for path, label in by_path(dataset).items()} == {
        f"{image_dir}/{path}": label for rows in content.values() for path, label, _ in rows}
    for split in SPLITS:
        drawn = Counter(dataset.classnames[datum.label] for datum in dataset.split(split))
        assert drawn == Counter(classname for _, _, classname in content[split])


def test_flowers_are_drawn_from_the_mat_file_as_the_real_split_is(real_data, tmp_path):
    content = json.loads((real_data / "splits" / "split_zhou_OxfordFlowers.json").read_text())
    rows = sorted(row for part in content.values() for row in part)
    savemat(tmp_path / "labels.mat", {"labels": np.array([[label + 1 for _, label, _ in rows]], dtype=np.uint8)})
    folder = tmp_path / "oxford_flowers"
    touch(folder, *(f"jpg/{path}" for path, _, _ in rows))
    (tmp_path / "labels.mat").rename(folder / "imagelabels.mat")
    write_json(folder / "cat_to_name.json", {str(label + 1): name for _, label, name in rows})
    dataset = build("Flowers102", tmp_path, split="drawn")
    assert by_path(dataset) == {f"oxford_flowers/jpg/{path}": name for path, _, name in rows}
    assert sizes(dataset) == REAL["Flowers102"]


def test_a_drawn_split_is_stored_under_its_own_name_and_stays(tmp_path):
    dishes = [f"{dish}/{number}.jpg" for dish in ("apple_pie", "waffles") for number in range(10)]
    touch(tmp_path / "food-101" / "images", *dishes)
    first = build("Food101", tmp_path, split="drawn")
    assert sizes(first) == (10, 4, 6)
    assert (tmp_path / "food-101" / "split_drawn_Food101.json").exists()
    assert not (tmp_path / "food-101" / "split_zhou_Food101.json").exists()
    touch(tmp_path / "food-101" / "images", "apple_pie/new.jpg")
    assert build("Food101", tmp_path, split="drawn") == first


def test_a_split_is_drawn_alike_wherever_the_data_lie(tmp_path):
    for root in (tmp_path / "a", tmp_path / "b" / "c"):
        touch(root / "food-101" / "images", *(f"{dish}/{number}.jpg" for dish in ("pie", "soup") for number in range(30)))
    first, second = (build("Food101", root, split="drawn") for root in (tmp_path / "a", tmp_path / "b" / "c"))
    assert [first.split(split) for split in SPLITS] == [second.split(split) for split in SPLITS]


def test_fgvc_aircraft_reads_the_official_lists(tmp_path):
    folder = tmp_path / "fgvc_aircraft"
    write_lines(folder / "variants.txt", "707-320", "DC-9-30", "Model B200")
    write_lines(folder / "images_variant_train.txt", "0034309 DC-9-30", "1025794 707-320")
    write_lines(folder / "images_variant_val.txt", "0056978 Model B200")
    write_lines(folder / "images_variant_test.txt", "1514522 707-320")
    dataset = build("FGVCAircraft", tmp_path)
    assert dataset.classnames == ("707-320", "DC-9-30", "Model B200")
    assert [(datum.path, datum.label) for datum in (*dataset.train, *dataset.val, *dataset.test)] == [
        ("fgvc_aircraft/images/0034309.jpg", 1), ("fgvc_aircraft/images/1025794.jpg", 0),
        ("fgvc_aircraft/images/0056978.jpg", 2), ("fgvc_aircraft/images/1514522.jpg", 0)]
    assert dataset.template == TEMPLATES["FGVCAircraft"]


def test_an_aircraft_that_is_no_variant_is_an_error(tmp_path):
    folder = tmp_path / "fgvc_aircraft"
    write_lines(folder / "variants.txt", "707-320")
    for split in SPLITS:
        write_lines(folder / f"images_variant_{split}.txt", "1 747-100")
    with pytest.raises(DataError, match="first '747-100'"):
        build("FGVCAircraft", tmp_path)


def test_ucf101_is_drawn_from_the_official_lists(tmp_path):
    lists = tmp_path / "ucf101" / "ucfTrainTestlist"
    write_lines(lists / "classInd.txt", "1 ApplyEyeMakeup", "2 YoYo")
    write_lines(lists / "trainlist01.txt", *(f"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c{n:02d}.avi 1" for n in range(5)),
                *(f"YoYo/v_YoYo_g08_c{n:02d}.avi 2" for n in range(10)))
    write_lines(lists / "testlist01.txt", "YoYo/v_YoYo_g01_c01.avi")
    dataset = build("UCF101", tmp_path, split="drawn")
    assert sizes(dataset) == (12, 3, 1)
    assert Counter(datum.label for datum in dataset.val) == {0: 1, 1: 2}
    assert dataset.classnames == ("Apply_Eye_Makeup", "Yo_Yo")
    assert [datum.path for datum in dataset.test] == ["ucf101/UCF-101-midframes/Yo_Yo/v_YoYo_g01_c01.jpg"]


def test_pets_are_drawn_from_the_official_lists_with_breeds_in_lower_case(tmp_path):
    annotations = tmp_path / "oxford_pets" / "annotations"
    write_lines(annotations / "trainval.txt", *(f"Abyssinian_{n} 1 1 1" for n in range(5)),
                *(f"american_pit_bull_terrier_{n} 2 2 1" for n in range(5)))
    write_lines(annotations / "test.txt", "Abyssinian_201 1 1 1", "american_pit_bull_terrier_105 2 2 1")
    dataset = build("OxfordPets", tmp_path, split="drawn")
    assert sizes(dataset) == (8, 2, 2)
    assert dataset.classnames == ("abyssinian", "american_pit_bull_terrier")
    assert {datum.path for datum in dataset.test} == {"oxford_pets/images/Abyssinian_201.jpg",
                                                      "oxford_pets/images/american_pit_bull_terrier_105.jpg"}


def car_annotations(*cars: tuple[str, int]) -> dict:
    """The devkit's struct array: a box, the class from 1, the file name."""
    fields = [(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    rows = [(1, 2, 3, 4, label, name) for name, label in cars]
    return {"annotations": np.array([rows], dtype=fields)}


def test_cars_are_drawn_from_the_devkit_with_the_year_in_front(tmp_path):
    folder = tmp_path / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array([["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]], dtype=object)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    savemat(folder / "devkit" / "cars_train_annos.mat", car_annotations(*((f"{n:05d}.jpg", n % 2 + 1) for n in range(1, 11))))
    savemat(folder / "cars_test_annos_withlabels.mat", car_annotations(("00001.jpg", 2), ("00002.jpg", 1)))
    dataset = build("StanfordCars", tmp_path, split="drawn")
    assert sizes(dataset) == (8, 2, 2)
    assert dataset.classnames == ("2000 AM General Hummer SUV", "2012 Acura RL Sedan")
    assert by_path(dataset)["stanford_cars/cars_test/00001.jpg"] == "2012 Acura RL Sedan"
    assert by_path(dataset)["stanford_cars/cars_train/00001.jpg"] == "2012 Acura RL Sedan"


def test_sun397_is_drawn_from_the_official_partition_with_path_words_reversed(tmp_path):
    folder = tmp_path / "sun397"
    write_lines(folder / "ClassName.txt", "/a/abbey", "/a/apartment_building/outdoor")
    write_lines(folder / "Training_01.txt", *(f"/a/abbey/sun_{n}.jpg" for n in range(5)),
                *(f"/a/apartment_building/outdoor/sun_{n}.jpg" for n in range(5)))
    write_lines(folder / "Testing_01.txt", "/a/apartment_building/outdoor/sun_x.jpg")
    dataset = build("SUN397", tmp_path, split="drawn")
    assert sizes(dataset) == (8, 2, 1)
    assert dataset.classnames == ("abbey", "outdoor apartment_building")
    assert [datum.path for datum in dataset.test] == ["sun397/SUN397/a/apartment_building/outdoor/sun_x.jpg"]


def test_imagenet_takes_labels_in_the_order_of_the_folders_and_the_validation_images_as_test(tmp_path):
    folder = tmp_path / "imagenet"
    write_lines(folder / "classnames.txt", "n01440764 tench", "n04008634 missile", "n03773504 missile")
    for synset in ("n01440764", "n03773504", "n04008634"):
        touch(folder / "images", f"train/{synset}/{synset}_1.JPEG", f"val/{synset}/ILSVRC2012_val_1.JPEG")
    dataset = build("ImageNet", tmp_path)
    assert sizes(dataset) == (3, 0, 3)
    assert dataset.classnames == ("tench", "missile", "missile")
    assert dataset.test[2] == Datum("imagenet/images/val/n04008634/ILSVRC2012_val_1.JPEG", 2)


@pytest.fixture
def small_imagenet(tmp_path) -> Path:
    """ImageNet's layout with two classes."""
    write_lines(tmp_path / "imagenet" / "classnames.txt", "n01440764 tench", "n01443537 goldfish")
    for part in ("train", "val"):
        touch(tmp_path / "imagenet" / "images" / part, "n01440764/a.JPEG", "n01443537/a.JPEG")
    return tmp_path


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_folder_of_imagenet_without_a_name_is_an_error(small_imagenet, part):
    """Row 3: its images would vanish without a message, for example if a line is missing in classnames.txt."""
    touch(small_imagenet / "imagenet" / "images" / part, "n01443538/a.JPEG")
    with pytest.raises(DataError, match=rf"images/{part}: 1 folders are not in classnames.txt, first 'n01443538'; did you"):
        build("ImageNet", small_imagenet)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_of_imagenet_without_a_folder_is_an_error(small_imagenet, part):
    """Row 3."""
    (small_imagenet / "imagenet" / "images" / part / "n01440764").rename(small_imagenet / "elsewhere")
    with pytest.raises(DataError, match=rf"images/{part}: 1 classes of classnames.txt have no folder, first 'n01440764'"):
        build("ImageNet", small_imagenet)


def test_a_folder_of_imagenet_with_two_names_is_an_error(small_imagenet):
    write_lines(small_imagenet / "imagenet" / "classnames.txt", "n01440764 tench", "n01443537 goldfish", "n01440764 carp")
    with pytest.raises(DataError, match=r"classnames.txt: 1 folders stand twice, first 'n01440764'"):
        build("ImageNet", small_imagenet)


def test_real_images_of_caltech101_lie_where_the_split_file_says(real_data, tmp_path):
    """The folder names also give the labels and class names of the split file."""
    (tmp_path / "caltech-101").symlink_to(real_data / "caltech101_small")
    dataset = build("Caltech101", tmp_path)
    assert sizes(dataset) == (600, 200, 400)
    assert all(path.is_file() for split in SPLITS for path in dataset.files(split))
    rows = folder_rows(tmp_path / "caltech-101" / "101_ObjectCategories", skip=SKIPPED, names=CLASSNAMES)
    assert {f"caltech-101/101_ObjectCategories/{path}": name for path, _, name in rows} == by_path(dataset)


def test_a_broken_mat_file_is_one_error(tmp_path):
    folder = tmp_path / "oxford_flowers"
    touch(folder, "jpg/image_00001.jpg")
    (folder / "imagelabels.mat").write_bytes(b"<html>not found</html>")
    write_json(folder / "cat_to_name.json", {})
    with pytest.raises(DataError, match=r"cannot read .*imagelabels\.mat"):
        build("Flowers102", tmp_path, split="drawn")
