"""The checker: every kind of finding from files written here, exit codes, JSON, and the real images."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import datasets  # noqa: F401  registers the data sets
from dassl.utils.files import write_json
from datasets.check import ERRORS, WARNINGS, main
from tests.data.files import grey_tiff, png


def write_image(path: Path, value: int, mode: str = "RGB", **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).convert(mode).save(path, **options)


@pytest.fixture
def root(tmp_path) -> Path:
    """An image folder with a given split: two classes, two train, one val and one test image each, all different."""
    rows = {split: [[f"{name}/{split}{row}.png", label, name]
                    for label, name in enumerate(("cat", "dog")) for row in range(count)]
            for split, count in (("train", 2), ("val", 1), ("test", 1))}
    for value, (path, _, _) in enumerate(row for part in rows.values() for row in part):
        write_image(tmp_path / path, value)
    write_json(tmp_path / "split.json", rows)
    return tmp_path


def run(root: Path, *arguments: str) -> tuple[int, dict]:
    code = main(["--root", str(root), "--json", str(root / "report.json"), "DATASET.NAME", "ImageFolder",
                 "DATASET.IMAGEFOLDER.SPLIT", "split.json", *arguments])
    return code, json.loads((root / "report.json").read_text())


def found(report: dict) -> dict:
    return {key: report[key] for key in (*ERRORS, *WARNINGS) if report[key]}


def test_nothing_wrong_is_exit_code_0(root, capsys):
    code, report = run(root)
    assert (code, found(report)) == (0, {})
    assert (report["n_train"], report["n_val"], report["n_test"], report["n_files"]) == (4, 2, 2, 8)
    assert "nothing is wrong" in capsys.readouterr().out


def test_files_that_cannot_be_read_are_found_by_kind(root):
    """Rows 1 and 2 of the faults table."""
    (root / "cat/train0.png").unlink()
    (root / "cat/train1.png").write_bytes(b"")
    (root / "dog/val0.png").write_text("text")
    content = (root / "dog/test0.png").read_bytes()
    (root / "dog/test0.png").write_bytes(content[:50])
    code, report = run(root)
    assert code == 1
    assert (report["missing"], report["empty"]) == (["cat/train0.png"], ["cat/train1.png"])
    assert [line.split(": ", 1)[0][-13:] for line in report["corrupt"]] == ["dog/test0.png", "/dog/val0.png"]
    assert set(found(report)) == {"missing", "empty", "corrupt"}


def test_files_that_cannot_be_read_this_time_are_told_from_corrupt_ones(root):
    """Row 1: here a folder in the place of an image; a failing disk looks the same."""
    (root / "cat/train0.png").unlink()
    (root / "cat/train0.png").mkdir()
    code, report = run(root)
    assert (code, set(found(report))) == (1, {"unread"})
    assert report["unread"][0].endswith("cat/train0.png: Is a directory")


def test_the_same_bytes_in_train_and_test_are_a_leak(root):
    """Row 5 of the faults table."""
    (root / "dog/test0.png").write_bytes((root / "dog/train1.png").read_bytes())
    code, report = run(root)
    assert (code, found(report)) == (1, {"leaks": ["train dog/train1.png = test dog/test0.png"]})


def test_the_same_bytes_in_one_split_and_under_two_labels_are_warnings(root):
    (root / "dog/train0.png").write_bytes((root / "cat/train1.png").read_bytes())
    code, report = run(root)
    assert code == 0
    assert found(report) == {"duplicates": ["train cat/train1.png = train dog/train0.png"],
                             "conflicts": ["cat/train1.png (cat) = dog/train0.png (dog)"]}


def test_a_class_without_images_is_found(root):
    """Row 3 of the faults table."""
    split = json.loads((root / "split.json").read_text())
    write_json(root / "split.json", {**split, "val": split["val"][:1]})
    assert found(run(root)[1]) == {"empty_classes": ["dog in val"]}


def test_an_unlabeled_folder_has_no_classes_without_images(root):
    """The classes of its images are not known yet. If all labels of a split are known, missing classes are reported."""
    for name in ("cat", "dog"):
        (root / name).rename(root / f"{name}2021")
    (root / "classes.txt").write_text("heron\negret\nibis")
    words = ["--root", str(root), "--json", str(root / "report.json"), "DATASET.NAME", "ImageFolder",
             "DATASET.IMAGEFOLDER.CLASSES", "classes.txt"]
    assert main(words) == 0
    report = json.loads((root / "report.json").read_text())
    assert report["empty_classes"] == [] and report["n_unlabeled"] == 8
    rows = [f"cat2021/train0.png,{name}" for name in ("heron",)] + ["cat2021/train1.png,egret"]
    (root / "labels.csv").write_text("\n".join(["path,label", *rows]))
    assert main([*words, "DATASET.IMAGEFOLDER.LABELS", "labels.csv", "DATASET.IMAGEFOLDER.TEST", "0.6"]) == 0
    assert json.loads((root / "report.json").read_text())["empty_classes"] == ["ibis in test"]


def test_odd_modes_and_rotations_are_found(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(root / "cat/train0.png", 100, "CMYK", format="TIFF")
    write_image(root / "cat/train1.png", 101, "RGBA")
    write_image(root / "dog/train0.png", 102, "L")
    write_image(root / "dog/train1.png", 103, exif=exif)
    code, report = run(root)
    assert code == 0
    assert found(report) == {"modes": ["cat/train0.png: CMYK", "cat/train1.png: RGBA"], "rotated": ["dog/train1.png"]}
    assert report["mode_counts"] == {"CMYK": 1, "RGBA": 1, "L": 1, "RGB": 5}


def test_deep_and_inverted_pixels_are_found(root):
    """Row 23 of the faults table: images that are refused, dark, or inverted are each named."""
    dark, ramp = np.uint16([[0, 4095]]), np.uint16([[0, 65535]])
    (root / "cat/train0.png").write_bytes(grey_tiff(np.int32([[0, 255]])))
    (root / "cat/train1.png").write_bytes(grey_tiff(dark))
    (root / "dog/train0.png").write_bytes(grey_tiff(np.uint8([[7, 255]]), photometric=0))
    (root / "dog/train1.png").write_bytes(grey_tiff(ramp, photometric=0))
    Image.fromarray(dark).save(root / "cat/val0.png")
    Image.fromarray(ramp).save(root / "dog/val0.png")
    (root / "cat/test0.png").write_bytes(png((2, 1, 16, 2, 0, 0, 0), b"\0" + np.full(6, 4095, ">u2").tobytes()))
    code, report = run(root)
    assert code == 1 and [line.split("/")[-1][:10] for line in report["corrupt"]] == ["train0.png"]
    assert "no known range" in report["corrupt"][0]
    assert report["inverted"] == [f"dog/train{row}.png: white is stored as zero" for row in (0, 1)]
    assert [line.split(":")[0] for line in report["narrow"]] == ["cat/test0.png", "cat/train1.png", "cat/val0.png"]
    assert {line.split(": ")[1] for line in report["narrow"]} == {"no pixel uses more than 12 of 16 bits"}


def test_half_written_files_are_found(root):
    """Row 1: an error if the format can tell, and a warning if it is only a guess."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for name, form in (("cat/train0.png", "PNG"), ("cat/train1.png", "WEBP"), ("dog/train0.png", "JPEG")):
        noise.save(root / name, form)
        content = (root / name).read_bytes()
        half = content[:len(content) // 2]
        (root / name).write_bytes(half + (b"\xff\xd9" if form == "JPEG" else bytes(len(content) - len(half))))
    code, report = run(root)
    assert code == 1 and set(found(report)) == {"corrupt", "partial"}
    assert len(report["corrupt"]) == 2 and report["partial"][0].startswith("cat/train1.png: the last ")


def test_class_names_that_clip_cannot_read_are_found(root):
    """Row 27 of the faults table; "x q" repeated gives two tokens each time."""
    split = json.loads((root / "split.json").read_text())
    names = ["na\u00efve", ("x q " * 50).strip()]
    write_json(root / "split.json", {key: [[path, label, names[label]] for path, label, _ in rows]
                                     for key, rows in split.items()})
    problems = " ".join(run(root)[1]["class_names"])
    assert "is not ASCII" in problems and "has 102 tokens; CLIP reads 77" in problems


def test_the_json_holds_any_file_name(root):
    """Row 22 of the faults table."""
    name = "cat/new\nline \udce9.png"
    (root / "cat/train0.png").rename(root / name)
    split = json.loads((root / "split.json").read_text())
    split["train"][0][0] = name
    write_json(root / "split.json", split)
    (root / name).write_bytes(b"")
    assert run(root)[1]["empty"] == [name]


@pytest.mark.parametrize(("arguments", "message"), [
    (["DATASET.NAME", "DTDD"], "did you mean 'DTD'"), (["--rot", "x"], "unknown flag --rot"), ([], "DATASET.NAME is not set")])
def test_a_wrong_command_line_is_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_whole_run_s_config_file_is_understood(tmp_path, capsys):
    """Nodes of trainers and samplers are left aside."""
    config = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    assert main(["--config-file", str(config), "--root", str(tmp_path)]) == 0
    assert "Digits: 1197 train" in capsys.readouterr().out


@pytest.mark.starts
def test_real_caltech101_has_no_fault_as_a_command(real_data, tmp_path):
    (tmp_path / "caltech-101").symlink_to(real_data / "caltech101_small")
    project = Path(__file__).parents[2]
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "datasets.check", "--root", str(tmp_path), "DATASET.NAME",
               "Caltech101"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "600 train, 200 val, 400 test images of 100 classes; 1200 files read" in done.stdout
