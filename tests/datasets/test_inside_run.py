"""A run on images inside other files gives the same result as one on the same images in files of their own."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from scripts.predict import main as predict
from tests.datasets.made import write_parquet

PROJECT = Path(__file__).parents[2]
N = {"train": 24, "test": 8}


def run(root: Path, output: Path, *words: str) -> dict:
    assert train.main(["--config-file", str(PROJECT / "configs/quickstart.yaml"), "--root", str(root), "--output-dir",
                       str(output), "DATASET.NAME", "Table", "ACTIVE.ROUNDS", "2", "ACTIVE.QUERY_SIZE", "4",
                       "OPTIM.MAX_EPOCH", "2", *words]) in (0, 3)
    return json.loads((output / "results.json").read_text()) if (output / "results.json").exists() else {}


def unpacked(inside: Path, folder: Path) -> Path:
    """Return a folder with the images of a folder of Parquet files as files, and a sheet of them."""
    import pyarrow.parquet as pq

    rows = ["path,label,split"]
    for split in N:
        for row in pq.read_table(inside / f"{split}.parquet").to_pylist():
            path = f"{split}/{row['image']['path']}"
            (folder / split).mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(row["image"]["bytes"])
            rows.append(f"{path},{row['label']},{split}")
    (folder / "labels.csv").write_text("\n".join(rows))
    (folder / "names.txt").write_text("cat\ndog\nempty class\n")
    return folder


@pytest.fixture(scope="module")
def inside(tmp_path_factory) -> Path:
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("inside")
    for place, (split, n_images) in enumerate(N.items()):
        write_parquet(folder / f"{split}.parquet", range(100 * place, 100 * place + n_images), row_group_size=5)
    return folder


def test_a_run_is_the_same_wherever_the_images_are(inside, tmp_path):
    """Picks, certificates and metrics agree. Ids are image names, not places in a file. Both runs share cached features."""
    first = run(inside, tmp_path / "first", "CACHE_DIR", str(tmp_path / "cache"))
    banks = sorted((tmp_path / "cache").glob("*.safetensors"))
    second = run(unpacked(inside, tmp_path / "files"), tmp_path / "second", "DATASET.TABLE.CLASSES", "names.txt",
                 "CACHE_DIR", str(tmp_path / "cache"))
    assert banks and sorted((tmp_path / "cache").glob("*.safetensors")) == banks
    assert first["certificate"] | {"config": ""} == second["certificate"] | {"config": ""}
    for one, other in zip(first["rounds"], second["rounds"], strict=True):
        assert one["queried"] == other["queried"] and one["metrics"] == other["metrics"]
        assert all(path.startswith("train/") and path.endswith(".png") for path in one["queried"])


def test_predictions_are_of_its_images(inside, tmp_path):
    """Sorted into folders they become files, with the bytes that are in the table."""
    run(inside, tmp_path / "run")
    assert predict([str(tmp_path / "run"), "--split", "test", "--output", str(tmp_path / "p.csv"), "--sort-into",
                    str(tmp_path / "sorted")]) == 0
    with open(tmp_path / "p.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["path"] for row in rows) == sorted(f"test/{row}.png" for row in range(100, 108))
    for row in rows:
        with Image.open(tmp_path / "sorted" / row["label"] / row["path"].split("/")[1]) as image:
            own = np.random.default_rng(int(row["path"][5:-4])).integers(0, 256, (10, 12, 3), dtype=np.uint8)
            assert np.array_equal(np.asarray(image), own)


def test_people_are_asked_about_its_images(inside, tmp_path):
    """They are shown in the contact sheet."""
    root = tmp_path / "pool"
    root.mkdir()
    import pyarrow.parquet as pq

    for split in N:
        table = pq.read_table(inside / f"{split}.parquet")
        pq.write_table(table if split == "test" else table.drop_columns("label"), root / f"{split}.parquet")
    run(root, tmp_path / "run", "ACTIVE.ORACLE", "file")
    sheet = (tmp_path / "run" / "queries" / "round_000.html").read_text()
    assert sheet.count("data:image/jpeg;base64") == 4 and "<code>train/" in sheet
    assert (tmp_path / "run" / "queries" / "round_000.csv").read_text().count("train/") == 4
