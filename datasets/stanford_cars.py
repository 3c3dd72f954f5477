"""Stanford Cars: 16,185 photographs of 196 car models, with the official test split.

Source: Krause et al., "3D Object Representations for Fine-Grained Categorization", 3dRR 2013. Split into train and val,
and the year before the class name: Zhou et al. (CoOp).
"""

from pathlib import Path

from dassl.data.annotations import read_mat
from dassl.data.dataset import DATASETS, Dataset, data_folder
from dassl.data.splits import Row, Rows, SplitSource, field_split, hold_out


@DATASETS.register("StanfordCars")
def stanford_cars(root: Path, *, split: SplitSource = "published") -> Dataset:
    """Return the data set in `root/stanford_cars`."""
    splits, classnames = field_split(data_folder(root, "stanford_cars"), "StanfordCars", "", split, _draw)
    return Dataset("StanfordCars", root, **splits, classnames=classnames, template="a photo of a {}.")


def _draw(folder: Path) -> Rows:
    names = [str(name) for name in read_mat(folder / "devkit" / "cars_meta.mat", "class_names")]
    train = _rows("cars_train", folder / "devkit" / "cars_train_annos.mat", names)
    return hold_out(train, _rows("cars_test", folder / "cars_test_annos_withlabels.mat", names), "StanfordCars")


def _rows(image_dir: str, file: Path, names: list[str]) -> list[Row]:
    return [(f"{image_dir}/{item['fname']}", int(item["class"]) - 1, _year_first(names[int(item["class"]) - 1]))
            for item in read_mat(file, "annotations")]


def _year_first(name: str) -> str:
    """Return "2012 Audi A5 Coupe" for "Audi A5 Coupe 2012"."""
    model, _, year = name.rpartition(" ")
    return f"{year} {model}"
