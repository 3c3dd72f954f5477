"""Things in image folders that are not images. Row 3 of the faults table."""

import logging
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import datasets  # noqa: F401  registers the data sets
from dassl.data.dataset import DATASETS, SPLITS
from dassl.data.folders import Tree, image_files, subfolders
from dassl.utils.errors import DataError
from tests.datasets.test_image_folder import touch

RECORD = Path(__file__).parents[1] / "files" / "before" / "people" / "run" / "results.json"
LOG = "2026-01-01 00:00:00,000 DEBUG train: config:"


@pytest.fixture(params=["classes", "table", "split"])
def layout(request, tmp_path) -> tuple[Path, dict[str, str], str]:
    """Return a root, the parameters of its layout, and the folder that holds the classes or images."""
    part = {"split": "train/"}.get(request.param, "")
    root = touch(tmp_path / "root", *(f"{own}{name}/{row}.jpg" for own in {part, part.replace("train", "test")}
                                      for name in ("cat", "dog") for row in range(10)))
    (root / "names.txt").write_text("heron\negret\nibis")
    (root / "labels.csv").write_text("path,label\n")
    return root, {"classes": "names.txt", "labels": "labels.csv"} if request.param == "table" else {}, part


def images(root: Path, words: dict) -> tuple[set[str], tuple[str, ...]]:
    for file in root.glob("split_*.json"):
        file.unlink()
    dataset = DATASETS["ImageFolder"].build(root, **words)
    return {datum.path for split in SPLITS for datum in dataset.split(split)}, dataset.classnames


def warned(caplog) -> list[str]:
    lines = [record.getMessage().partition(": ")[2] for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return lines


def test_the_output_of_runs_is_no_class_and_its_curve_no_image(layout, caplog):
    """Right below the root, moved aside by --overwrite, below a folder of runs, copied without its lock, or as a sweep's."""
    root, words, part = layout
    before = images(root, words)
    touch(root, f"{part}run/.lock", f"{part}run/learning_curve.png", f"{part}run.20260101-000000-000000/learning_curve.png",
          f"{part}output/a/b/learning_curve.png", f"{part}output/a/b/queries/round_000.csv",
          f"{part}copied/learning_curve.png", f"{part}my cache/ImageFolder_train_0.digests")
    (root / f"{part}copied/log.txt").write_text(f"{LOG}\n")
    for run in ("run.20260101-000000-000000", "output/a/b"):
        shutil.copy(RECORD, root / part / run)
    caplog.clear()
    assert images(root, words) == before
    line, = warned(caplog)
    assert line.startswith("5 folders or files are of this project's runs and hold no images of a class; they are left out: ")


def test_a_root_that_is_an_output_folder_keeps_its_images(tmp_path, caplog):
    """Files that the run wrote there do not count as images."""
    root = touch(tmp_path, *(f"{name}/{row}.jpg" for name in ("cat", "dog") for row in range(10)), ".lock",
                 "learning_curve.png", "prompts/round_000.safetensors", "queries/round_000.csv")
    assert images(root, {})[1] == ("cat", "dog")
    assert warned(caplog) == ["3 folders or files are of this project's runs and hold no images of a class; they are left out: "
                              "learning_curve.png, prompts, queries"]


def test_a_class_with_notes_beside_its_images_is_a_class(layout, caplog):
    """A log.txt and a results.json may be other programs' files, and folders of images may have a run next to them."""
    root, words, part = layout
    touch(root, f"{part}elk/1.jpg", f"{part}elk/2.jpg", f"{part}elk/run/.lock", f"{part}elk/run/learning_curve.png")
    (root / f"{part}elk/results.json").write_text('{"animals": 2}')
    (root / f"{part}elk/log.txt").write_text("2026: bought a camera\n")
    found, names = images(root, words)
    assert {f"{part}elk/1.jpg", f"{part}elk/2.jpg"} <= found and not any("curve" in path for path in found)
    assert words or names == ("cat", "dog", "elk")
    assert [line.split(";")[0] for line in warned(caplog)][:1] == [
        "1 folders or files are of this project's runs and hold no images of a class"]


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", "@EADIR", "lost+found", "$RECYCLE.BIN", "System Volume Information"])
def test_folders_of_operating_systems_are_left_out_in_one_line(layout, caplog, name):
    """They may be next to the classes or inside them."""
    root, words, part = layout
    before = images(root, words)
    touch(root, f"{part}{name}/1.jpg", f"{part}{name}/deep/2.jpg", f"{part}cat/{name}/0.jpg", f"{part}cat/Thumbs.db",
          f"{part}.ipynb_checkpoints/3.jpg", ".cache/4.jpg", f"{part}cat/._0.jpg")
    caplog.clear()
    assert images(root, words) == before
    line, = warned(caplog)
    assert line.startswith("3 folders or files are the operating system's; they are left out: ") and name in line


def test_links_that_lead_nowhere_or_back_are_said_in_a_line_each(layout, caplog):
    """A link may lead to itself, to the folder above, or to another such link. The walk ends, and no path is listed twice."""
    root, words, part = layout
    before = images(root, words)
    for link, target in (("cat/self", "self"), ("cat/up", ".."), ("cat/down", "../dog"), ("dog/across", "../cat")):
        os.symlink(target, root / part / link)
    os.symlink("nowhere.jpg", root / part / "cat" / "gone.jpg")
    caplog.clear()
    found, names = images(root, words)
    assert names == before[1] and before[0] <= found
    lines = {re.sub(r".*?links", "links", line.split(";")[0]) for line in warned(caplog)}
    assert {"links lead back to a folder that they lie in, or to themselves", "links lead nowhere"} <= lines
    assert len(found) <= len(before[0]) + 20


def test_a_link_to_a_folder_elsewhere_is_a_folder(tmp_path):
    touch(tmp_path, "disk/cat/1.jpg", "root/dog/1.jpg")
    os.symlink(tmp_path / "disk" / "cat", tmp_path / "root" / "cat")
    assert subfolders(tmp_path / "root") == ["cat", "dog"] and image_files(tmp_path / "root" / "cat") == ["1.jpg"]


def test_folders_beyond_what_a_path_may_hold_are_an_error(tmp_path):
    """1,100 nested folders give an error, not a traceback."""
    top = tmp_path / "root"
    top.mkdir()
    above = os.open(top, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("1234", dir_fd=above)
        below = os.open("1234", os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)
    try:
        with pytest.raises(DataError, match=r"cannot read the folder .*File name too long"):
            Tree(top)
    finally:
        subprocess.run(["rm", "-r", top], check=True)  # deeper than Python's own removal goes


@pytest.mark.parametrize("name", [".lock", "log.txt", "results.json"])
def test_a_class_in_which_a_run_has_left_a_file_keeps_its_images(tmp_path, name):
    """A class folder given as --output-dir is still a class, and what the run wrote is not one of its images."""
    touch(tmp_path, "dog/1.jpg", "dog/2.png", "dog/learning_curve.png", "dog/prompts/round_000.png", "out/prompts/a.png")
    content = {"log.txt": "2026-01-01 10:00:00,000 INFO x: y\n", "results.json": '{\n "schema": 1}'}.get(name, "")
    for folder in ("dog", "out"):
        (tmp_path / folder / name).write_text(content)
    assert subfolders(tmp_path) == ["dog"] and image_files(tmp_path / "dog") == ["1.jpg", "2.png"]
    assert subfolders(tmp_path / "dog") == []
