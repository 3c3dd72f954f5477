"""Torchvision: data sets in the layouts that torchvision's classes read, with a few images written by hand."""

import bz2
import csv
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.io import savemat

import datasets  # noqa: F401  registers the data sets
from dassl.config.setup import setup_config
from dassl.data.build import load_dataset
from dassl.data.dataset import DATASETS, SPLITS, UNLABELED
from dassl.data.images import read_image
from dassl.utils.errors import ConfigError, DataError
from datasets.torchvision_sets import OTHERS, SETS
from tests.datasets.made import image_files

N = 6  # images of most splits
RNG = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def text(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


def cifar(root: Path, folder: str, train: list[str], meta: tuple[str, str], key: str) -> None:
    (root / folder).mkdir()
    for name in train:
        with open(root / folder / name, "wb") as file:
            pickle.dump({"data": pixels(N, 3072), key: [row % 2 for row in range(N)]}, file)
    with open(root / folder / meta[0], "wb") as file:
        pickle.dump({meta[1]: ["air_plane", "car"]}, file)


def cifar10(root: Path) -> None:
    cifar(root, "cifar-10-batches-py", [*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"],
          ("batches.meta", "label_names"), "labels")


def cifar100(root: Path) -> None:
    cifar(root, "cifar-100-python", ["train", "test"], ("meta", "fine_label_names"), "fine_labels")


def idx(file: Path, values: np.ndarray) -> None:
    """Write MNIST's own format."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes())


def mnist(name: str, prefixes: tuple[str, str] = ("train", "t10k")) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for prefix in prefixes:
            idx(root / name / "raw" / f"{prefix}-images-idx3-ubyte", pixels(N, 28, 28))
            idx(root / name / "raw" / f"{prefix}-labels-idx1-ubyte", np.arange(N, dtype=np.uint8))
    return write


def qmnist(root: Path) -> None:
    for split in ("train", "test"):
        idx(root / "QMNIST" / "raw" / f"qmnist-{split}-images-idx3-ubyte", pixels(N, 28, 28))
        labels = np.zeros((N, 8), ">i4")
        labels[:, 0] = np.arange(N)
        file = root / "QMNIST" / "raw" / f"qmnist-{split}-labels-idx2-int"
        file.write_bytes(struct.pack(">III", 0x0C02, N, 8) + labels.tobytes())


def usps(root: Path) -> None:
    lines = [f"{row + 1} " + " ".join(f"{place}:{value:.3f}" for place, value in enumerate(RNG.uniform(-1, 1, 256), 1))
             for row in range(N)]
    for name in ("usps.bz2", "usps.t.bz2"):
        (root / name).write_bytes(bz2.compress("\n".join(lines).encode()))


def semeion(root: Path) -> None:
    text(root / "semeion.data", *(" ".join(map(str, [*RNG.integers(0, 2, 256), *np.eye(10, dtype=int)[row % 3]]))
                                  for row in range(4 * N)))


def svhn(root: Path) -> None:
    for split in ("train", "test"):
        savemat(root / f"{split}_32x32.mat", {"X": pixels(32, 32, 3, N), "y": np.array([[10], [1], [2], [10], [1], [2]])})


def stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    text(folder / "class_names.txt", "airplane", "bird")
    text(folder / "unlabeled_X.bin")
    for split in ("train", "test"):
        (folder / f"{split}_X.bin").write_bytes(pixels(N, 3, 96, 96).tobytes())
        (folder / f"{split}_y.bin").write_bytes(bytes([1, 2] * (N // 2)))


def fer2013(root: Path) -> None:
    rows = [[row % 7, " ".join(map(str, pixels(2304))), usage] for usage in ("Training", "PublicTest") for row in range(N)]
    text(root / "fer2013" / "fer2013.csv")
    with open(root / "fer2013" / "fer2013.csv", "w", newline="") as file:
        csv.writer(file).writerows([["emotion", "pixels", "Usage"], *rows])


def pcam(root: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (root / "pcam").mkdir()
    for split in ("train", "valid", "test"):
        for kind, values in (("x", pixels(N, 96, 96, 3)), ("y", np.arange(N, dtype=np.uint8).reshape(N, 1, 1, 1) % 2)):
            with h5py.File(root / "pcam" / f"camelyonpatch_level_2_split_{split}_{kind}.h5", "w") as file:
                file[kind] = values


def food101(root: Path) -> None:
    for split, rows in (("train", range(3)), ("test", range(3, 5))):
        files = {name: [f"{name}/{row}" for row in rows] for name in ("apple_pie", "sushi")}
        (root / "food-101" / "meta").mkdir(parents=True, exist_ok=True)
        (root / "food-101" / "meta" / f"{split}.json").write_text(json.dumps(files))
        image_files(root / "food-101" / "images", [f"{path}.jpg" for own in files.values() for path in own])


def flowers102(root: Path) -> None:
    image_files(root / "flowers-102" / "jpg", [f"image_{row:05d}.jpg" for row in range(1, 10)])
    savemat(root / "flowers-102" / "setid.mat", {"trnid": [1, 2, 3, 4], "valid": [5, 6], "tstid": [7, 8, 9]})
    savemat(root / "flowers-102" / "imagelabels.mat", {"labels": [1, 2, 1, 102, 1, 2, 1, 2, 1]})


def dtd(root: Path) -> None:
    for place, split in enumerate(("train", "val", "test")):
        paths = [f"{name}/{name}_{place}.jpg" for name in ("banded", "woven")]
        text(root / "dtd" / "dtd" / "labels" / f"{split}1.txt", *paths)
        image_files(root / "dtd" / "dtd" / "images", paths)


def eurosat(root: Path) -> None:
    image_files(root / "eurosat" / "2750", [f"{name}/{name}_{row}.jpg" for name in ("Forest", "SeaLake") for row in range(9)])


def gtsrb(root: Path) -> None:
    image_files(root / "gtsrb" / "GTSRB" / "Training", [f"{label:05d}/{row}.ppm" for label in range(43) for row in range(2)])
    image_files(root / "gtsrb" / "GTSRB" / "Final_Test" / "Images", ["00000.ppm", "00001.ppm"])
    text(root / "gtsrb" / "GT-final_test.csv", "Filename;ClassId", "00000.ppm;14", "00001.ppm;2")


def aircraft(root: Path) -> None:
    folder = root / "fgvc-aircraft-2013b" / "data"
    text(folder / "variants.txt", "707-320", "A320")
    for place, split in enumerate(("train", "val", "test")):
        text(folder / f"images_variant_{split}.txt", f"000{place}1 707-320", f"000{place}2 A320")
        image_files(folder / "images", [f"000{place}1.jpg", f"000{place}2.jpg"])


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    for place, split in enumerate(("trainval", "test")):
        names = [f"Abyssinian_{place}", f"american_bulldog_{place}"]
        text(folder / "annotations" / f"{split}.txt", *(f"{name} {label + 1} 1 1" for label, name in enumerate(names)))
        image_files(folder / "images", [f"{name}.jpg" for name in names])
    (folder / "annotations" / "trimaps").mkdir()


def cars(root: Path) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    kind = [("class", "i4"), ("fname", "U16")]
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        savemat(folder / file, {"annotations": np.array([(1, "00001.jpg"), (2, "00002.jpg"), (2, "00003.jpg")], kind)})
        image_files(folder / f"cars_{split}", ["00001.jpg", "00002.jpg", "00003.jpg"])
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["Audi A5 2012", "BMW M3"], object)})


def caltech101(root: Path) -> None:
    image_files(root / "caltech101" / "101_ObjectCategories", [
        f"{name}/image_{row:04d}.jpg" for name in ("accordion", "sea_horse") for row in range(1, 9)])
    (root / "caltech101" / "101_ObjectCategories" / "BACKGROUND_Google").mkdir()


def caltech256(root: Path) -> None:
    image_files(root / "caltech256" / "256_ObjectCategories", [
        f"{label:03d}.{name}/{label:03d}_{row:04d}.jpg" for label, name in ((1, "ak47"), (2, "bear")) for row in range(1, 9)])


def folders(place: str, names: tuple[str, ...], end: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for split in ("train", "valid", "test"):
            image_files(root / place / split, [f"{name}/{row}.{end}" for name in names for row in range(3)])
    return write


def sun397(root: Path) -> None:
    text(root / "SUN397" / "ClassName.txt", "/a/abbey", "/a/apartment_building/outdoor")
    image_files(root / "SUN397", [f"a/{name}/sun_{row}.jpg" for name in ("abbey", "apartment_building/outdoor")
                                  for row in range(8)])


def clevr(root: Path) -> None:
    folder = root / "clevr" / "CLEVR_v1.0"
    for split in ("train", "val"):
        image_files(folder / "images" / split, [f"{split}_{row}.png" for row in range(4)])
        (folder / "scenes").mkdir(exist_ok=True)
        (folder / "scenes" / f"CLEVR_{split}_scenes.json").write_text(json.dumps({"scenes": [
            {"image_filename": f"{split}_{row}.png", "objects": [{}] * (3 + 7 * (row % 2))} for row in range(4)]}))


def omniglot(root: Path) -> None:
    text(root / "omniglot-py" / "images_background.zip")
    for label in (1, 2):
        folder = root / "omniglot-py" / "images_background" / "Greek" / f"character0{label}"
        folder.mkdir(parents=True)
        for row in range(8):
            Image.fromarray(pixels(9, 9)).save(folder / f"{row}.png")


def lfw(root: Path) -> None:
    folder = root / "lfw-py"
    text(folder / "lfw-funneled.tgz")
    text(folder / "lfw-names.txt", "Ann_A\t4", "Bob_B\t4")
    text(folder / "people.txt", "2", "1", "Ann_A\t4", "1", "Bob_B\t4")
    image_files(folder / "lfw_funneled", [f"{name}/{name}_{row:04d}.jpg" for name in ("Ann_A", "Bob_B") for row in range(1, 5)])


def inaturalist(root: Path) -> None:
    for version in ("2021_train", "2021_valid"):
        image_files(root / version, [f"{label:05d}_Animalia_B_C_D_E_{name}_x/{row}.jpg" for label, name in enumerate("FG")
                                     for row in range(3)])


def imagenette(root: Path) -> None:
    for split in ("train", "val"):
        image_files(root / "imagenette2" / split, [
            f"{wnid}/{row}.jpeg" for wnid in ("n01440764", "n02102040") for row in range(3)])


def imagenet(root: Path) -> None:
    for split in ("train", "val"):
        image_files(root / split, [f"{wnid}/{row}.jpg" for wnid in ("n01", "n02") for row in range(3)])
    torch.save(({"n01": ("tench", "Tinca tinca"), "n02": ("goldfish", "Carassius auratus")}, ["n01"]), root / "meta.bin")


def places365(root: Path) -> None:
    text(root / "categories_places365.txt", "/a/airfield 0", "/a/apartment_building/outdoor 1")
    text(root / "places365_train_standard.txt", "/a/airfield/1.jpg 0", "/a/apartment_building/outdoor/2.jpg 1")
    text(root / "places365_val.txt", "v1.jpg 1", "v2.jpg 0")
    image_files(root / "data_large_standard" / "a", ["airfield/1.jpg", "apartment_building/outdoor/2.jpg"])
    image_files(root / "val_large", ["v1.jpg", "v2.jpg"])


LAYOUTS: dict[str, tuple[Callable[[Path], None], tuple[int, int, int], tuple[str, ...]]] = {
    "CIFAR10": (cifar10, (5 * N, 0, N), ("air plane", "car")), "CIFAR100": (cifar100, (N, 0, N), ("air plane", "car")),
    "MNIST": (mnist("MNIST"), (N, 0, N), ("zero", "one")), "QMNIST": (qmnist, (N, 0, N), ("zero", "one")),
    "FashionMNIST": (mnist("FashionMNIST"), (N, 0, N), ("T-shirt top", "Trouser")),
    "KMNIST": (mnist("KMNIST"), (N, 0, N), ("o", "ki")),
    "EMNIST": (mnist("EMNIST", ("emnist-balanced-train", "emnist-balanced-test")), (N, 0, N), ("0", "1")),
    "USPS": (usps, (N, 0, N), ("zero", "one")), "SEMEION": (semeion, (12, 6, 6), ("zero", "one")),
    "SVHN": (svhn, (N, 0, N), ("zero", "one")), "STL10": (stl10, (N, 0, N), ("airplane", "bird")),
    "FER2013": (fer2013, (N, 0, N), ("angry", "disgusted")), "PCAM": (pcam, (N, N, N), ("healthy lymph node tissue",)),
    "Food101": (food101, (6, 0, 4), ("apple pie", "sushi")), "Flowers102": (flowers102, (4, 2, 3), ("pink primrose",)),
    "DTD": (dtd, (2, 2, 2), ("banded", "woven")), "EuroSAT": (eurosat, (8, 4, 6), ("Forest", "SeaLake")),
    "GTSRB": (gtsrb, (86, 0, 2), ("20 km/h speed limit",)), "FGVCAircraft": (aircraft, (2, 2, 2), ("707-320", "A320")),
    "OxfordIIITPet": (pets, (2, 0, 2), ("Abyssinian", "American Bulldog")),
    "StanfordCars": (cars, (3, 0, 3), ("Audi A5 2012", "BMW M3")),
    "Caltech101": (caltech101, (8, 4, 4), ("accordion", "sea horse")), "Caltech256": (caltech256, (8, 4, 4), ("ak47", "bear")),
    "Country211": (folders("country211", ("AD", "AE"), "jpg"), (6, 6, 6), ("AD", "AE")),
    "RenderedSST2": (folders("rendered-sst2", ("negative", "positive"), "png"), (6, 6, 6), ("negative", "positive")),
    "SUN397": (sun397, (8, 4, 4), ("abbey", "apartment building outdoor")),
    "CLEVRClassification": (clevr, (4, 0, 4), ("3", "10")), "Omniglot": (omniglot, (8, 4, 4), ("Greek character01",)),
    "Imagenette": (imagenette, (6, 0, 6), ("tench", "English springer")),
    "ImageNet": (imagenet, (6, 0, 6), ("tench", "goldfish")),
    "Places365": (places365, (2, 0, 2), ("airfield", "apartment building outdoor")),
    "LFWPeople": (lfw, (4, 2, 2), ("Ann A", "Bob B")),
    "INaturalist": (inaturalist, (6, 0, 6), ("Animalia B C D E F x", "Animalia B C D E G x")),
}


def test_the_layouts_are_those_of_all():
    assert set(LAYOUTS) == set(SETS)


@pytest.fixture(autouse=True)
def unverified(monkeypatch):
    """Switch checksums off: they are those of the published files, and comparing them is torchvision's job."""
    for name in ("cifar", "svhn", "stl10", "omniglot", "places365", "flowers102", "semeion", "fer2013", "lfw", "mnist"):
        module = getattr(torchvision.datasets, name)
        monkeypatch.setattr(module, "check_integrity", lambda path, *_, **__: Path(path).exists())


def build(root: Path, name: str, **parameters):
    return DATASETS["Torchvision"].build(root, name=name, **parameters)


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_is_a_data_set_with_its_images_labels_and_names(tmp_path, name):
    """Pixels and labels are what torchvision's own class yields, row by row."""
    write, sizes, names = LAYOUTS[name]
    write(tmp_path)
    dataset = build(tmp_path, name)
    assert tuple(len(dataset.split(split)) for split in SPLITS) == sizes
    assert dataset.classnames[:len(names)] == names
    collection = SETS[name]
    theirs = [pair for own in collection.splits.values()
              for pair in getattr(torchvision.datasets, name)(str(tmp_path), **own, **collection.keywords,
                                                              **({"download": False} if name == "SEMEION" else {}))]
    if name == "Omniglot":  # whose own order is that of the file system
        found = getattr(torchvision.datasets, name)(str(tmp_path))
        theirs = [(image, sorted(found._characters).index(found._characters[label])) for image, label in theirs]
    number = (lambda label: ("3", "10").index(str(label))) if name == "CLEVRClassification" else int
    wanted = sorted((image.convert("RGB").tobytes(), number(label)) for image, label in theirs)
    found = [(read_image(dataset.place(datum.path)).tobytes(), datum.label)
             for split in SPLITS for datum in dataset.split(split)]
    assert sorted(found) == wanted


def test_what_was_written_once_is_read_again(tmp_path):
    """A second build leaves the written shard as it is. Ids are positions in torchvision's array, as it has no names."""
    cifar10(tmp_path)
    first = build(tmp_path, "CIFAR10")
    shard = tmp_path / "torchvision-CIFAR10" / "train.tar"
    before = shard.stat().st_mtime_ns
    assert build(tmp_path, "CIFAR10") == first and shard.stat().st_mtime_ns == before
    assert first.train[7].path == "train/000007.ppm" and first.name == "torchvision-CIFAR10"


def test_pixels_of_arrays_are_kept(tmp_path):
    cifar10(tmp_path)
    dataset = build(tmp_path, "CIFAR10")
    found = torchvision.datasets.CIFAR10(str(tmp_path), train=False)
    assert [read_image(file).tobytes() for file in dataset.files("test")] == [image.tobytes() for image, _ in found]
    assert all(np.array_equal(np.asarray(read_image(file)), found.data[row]) for row, file in enumerate(dataset.files("test")))


def test_every_class_of_torchvision_is_read_or_said_to_be_something_else():
    """A new torchvision release may add a class, which must then be added to one of the two tables."""
    theirs = {name for name in torchvision.datasets.__all__ if isinstance(getattr(torchvision.datasets, name), type)}
    assert theirs - {"VisionDataset"} == set(SETS) | set(OTHERS)
    assert not set(SETS) & set(OTHERS)


@pytest.mark.parametrize(("name", "message"), [
    ("Cifar10", "did you mean 'CIFAR10'"), ("", "known: CIFAR10"), ("CocoCaptions", "holds no image with its class: captions")])
def test_a_name_that_is_none_is_one_line(tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, name)


def test_what_is_not_there_is_one_line_with_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"torchvision's CIFAR10 cannot be loaded from .*: Dataset not found or corrupted.*; "
                                        r"put its files .*, or DATASET\.TORCHVISION\.DOWNLOAD True") as caught:
        build(tmp_path, "CIFAR10")
    assert "\n" not in str(caught.value)


def test_options_are_keywords_of_the_class(tmp_path):
    mnist("EMNIST", ("emnist-digits-train", "emnist-digits-test"))(tmp_path)
    dataset = build(tmp_path, "EMNIST", options=("split=digits",))
    assert dataset.name == "torchvision-EMNIST-split_digits" and len(dataset.classnames) == 10
    keys = {"NAME": "Torchvision", "ROOT": str(tmp_path), "TORCHVISION.NAME": "EMNIST",
            "TORCHVISION.OPTIONS": "('split=digits',)"}
    cfg = setup_config([], [(f"DATASET.{key}", value) for key, value in keys.items()], (DATASETS,))
    assert load_dataset(cfg.DATASET) == dataset
    with pytest.raises(ConfigError, match=r"OPTIONS: EMNIST has no 'spilt'; did you mean 'split'"):
        build(tmp_path, "EMNIST", options=("spilt=digits",))


def test_names_that_two_classes_have_first_are_told_apart(tmp_path, monkeypatch):
    """As the two cranes of ImageNet: they must not become one class."""
    folders("country211", ("a", "b", "c"), "jpg")(tmp_path)
    real = torchvision.datasets.Country211.__init__

    def named(self, *arguments, **keywords):
        real(self, *arguments, **keywords)
        self.classes = [("crane", "bird"), ("crane", "machine"), ("stork", "bird")]

    monkeypatch.setattr(torchvision.datasets.Country211, "__init__", named)
    dataset = build(tmp_path, "Country211")
    assert dataset.classnames == ("crane, bird", "crane, machine", "stork")
    assert {datum.label for datum in dataset.train} == {0, 1, 2} and UNLABELED not in {datum.label for datum in dataset.train}
