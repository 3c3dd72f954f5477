"""`scripts/predict.py` as people call it: what it says about each image, and that it agrees with the run."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import train
from active.record.results import RunResult
from dassl.data import store
from dassl.evaluation.metrics import METRICS
from dassl.utils.files import sha256_of
from scripts.predict import main
from tests import commands
from tests.active.toy import cut_back, edit
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.job import use_of
from trainers.core.prompted_clip import PromptedCLIP

PROJECT = Path(__file__).parents[2]
QUICK = ["--config-file", "configs/quickstart.yaml", "ACTIVE.ROUNDS", "2", "OPTIM.MAX_EPOCH", "2"]
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def run(root, output, *words) -> Path:
    assert train.main([str(word) for word in (*QUICK, "--root", root, "--output-dir", output, *words)]) in (0, 3)
    return output


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory) -> Path:
    """A finished run of CoOp on digits, to be read."""
    return run(root, tmp_path_factory.mktemp("finished") / "run")


def table(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return list(csv.DictReader(stream))


def call(capsys, *words) -> tuple[int, str, str]:
    capsys.readouterr()  # what a run has said
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def predicted(capsys, tmp_path, *words, code: int = 0) -> list[dict[str, str]]:
    found, out, err = call(capsys, *words, "--output", tmp_path / "predictions.csv")
    assert found == code and "path,label" not in out, err
    return table(tmp_path / "predictions.csv")


@pytest.mark.parametrize("words", [
    ["TRAINER.NAME", "CoOp"], ["TRAINER.NAME", "VPT"], ["TRAINER.NAME", "TCP"],
    ["TRAINER.NAME", "ProLIP"], ["TRAINER.NAME", "TipAdapterF"], ["TRAINER.NAME", "GDA"],
    ["TRAINER.NAME", "LinearProbe", "TRAINER.CALIBRATION", "leave_one_out"],
    ["TRAINER.NAME", "RLA", "TRAINER.CALIBRATION", "leave_one_out"],
], ids=lambda words: "-".join(words[1::2]))
def test_predictions_of_the_test_split_are_those_of_the_record(capsys, root, tmp_path, words):
    """Accuracy, macro-F1 and calibration error to the last digit, of each kind of learner, and with a temperature."""
    folder = run(root, tmp_path / "run", "ACTIVE.SAMPLER", "random", *words)
    rows = predicted(capsys, tmp_path, folder, "--split", "test")
    truth = np.array([CLASSES.index(row["path"].split("/")[2]) for row in rows])
    probs = np.zeros((len(rows), len(CLASSES)))
    for own, row in zip(probs, rows, strict=True):
        own[CLASSES.index(row["label"])] = float(row["confidence"])
    found = {name: METRICS[name].build(probs, truth) for name in ("accuracy", "macro_f1", "ece")}
    assert found == RunResult.read(folder / "results.json").rounds[-1].metrics and len(rows) == 450
    if "TRAINER.CALIBRATION" in words:
        with safe_open(folder / "prompts" / "round_001.safetensors", "pt") as file:
            assert file.get_tensor("calibration.temperature") != 1


def test_the_pool_is_read_from_the_cache_and_labels_that_were_given_count(capsys, monkeypatch, root, tmp_path, finished):
    """All train images are predicted, labeled or not. None is decoded, and nothing is trained."""
    monkeypatch.setattr(FrozenCLIP, "encode_image", lambda *_: pytest.fail("an image was encoded"))
    monkeypatch.setattr("trainers.core.trainer.fit", lambda *_, **__: pytest.fail("it was trained"))
    rows = predicted(capsys, tmp_path, finished)
    bought = {name for record in RunResult.read(finished / "results.json").rounds for name in record.queried}
    assert len(rows) == 1197 and {row["path"] for row in rows if row["given"] == "yes"} == bought
    for row in rows:
        shares = [float(row[key]) for key in ("confidence", "second_confidence", "third_confidence")]
        assert float(row["margin"]) == shares[0] - shares[1] and shares[1] >= shares[2]
        assert len({row["label"], row["second"], row["third"]}) == 3
        if row["given"] == "yes":
            assert row["label"] == row["path"].split("/")[2]
        else:
            assert row["given"] == "no" and shares[0] >= shares[1]
    wrong = [row for row in rows if float(row["margin"]) < 0]
    assert wrong and all(row["given"] == "yes" for row in wrong)  # where the model says something else than who labeled


def test_the_images_may_be_gone_where_the_cache_is_not(capsys, root, tmp_path):
    """Of the data root, the split file and the cache are left; the same predictions, to the last digit."""
    shutil.copytree(root, data := tmp_path / "data")
    folder = run(data, tmp_path / "run")
    before = predicted(capsys, tmp_path, folder)
    shutil.rmtree(data / "digits" / "images")
    assert predicted(capsys, tmp_path, folder) == before


def test_a_damaged_image_of_the_pool_is_listed_and_the_others_are_predicted(capsys, root, tmp_path):
    """Row 34: it was whole when the run read it. The cache has the others, also one that is gone, and one is another now."""
    shutil.copytree(root, data := tmp_path / "data")
    folder = run(data, tmp_path / "run")
    before = {row["path"]: row for row in predicted(capsys, tmp_path, folder)}
    damaged, changed, gone = [name for name, row in before.items() if row["given"] == "no"][:3]
    (data / damaged).write_bytes((data / damaged).read_bytes()[:60])
    shutil.copy(data / gone, data / changed)
    (data / gone).unlink()
    code, _, err = call(capsys, folder, "--output", tmp_path / "predictions.csv")
    after = {row["path"]: row for row in table(tmp_path / "predictions.csv")}
    assert code == 1 and "1 images cannot be read and have no prediction:\n  cannot decode" in err and damaged in err
    assert after.pop(damaged) == dict.fromkeys(before[damaged], "") | {"path": damaged, "given": "no"}
    assert float(after[changed]["confidence"]) == pytest.approx(float(before[gone]["confidence"]), abs=1e-5)
    assert all(row == before[name] for name, row in after.items() if name != changed) and len(after) == 1196


def test_a_moved_data_root_is_named_by_root(capsys, root, tmp_path, finished):
    before = predicted(capsys, tmp_path, finished)
    shutil.copytree(root, tmp_path / "elsewhere")
    assert predicted(capsys, tmp_path, finished, "--root", tmp_path / "elsewhere") == before


def test_a_prompts_file_is_that_round(capsys, monkeypatch, tmp_path, finished):
    """Any path to it works."""
    last = predicted(capsys, tmp_path, finished)
    files = [finished / "prompts" / f"round_00{round}.safetensors" for round in (0, 1)]
    assert predicted(capsys, tmp_path, files[1]) == last != predicted(capsys, tmp_path, files[0])
    monkeypatch.chdir(finished / "prompts")
    assert use_of(files[1].name).folder == use_of("..").folder.resolve() == finished


def test_folders_and_files_of_any_images(capsys, tmp_path, finished):
    """They are found at any depth. Files that are not images are skipped; damaged and unsupported images are listed."""
    photos = tmp_path / "photos"
    (photos / "deep" / "er").mkdir(parents=True)
    Image.new("L", (50, 70), 99).save(photos / "grey.png")
    Image.new("RGB", (300, 200), (200, 0, 0)).save(photos / "deep" / "er" / "IMG_0001.JPG", "JPEG")
    content = (photos / "deep" / "er" / "IMG_0001.JPG").read_bytes()
    (photos / "deep" / "cut.jpg").write_bytes(content[:len(content) // 2])
    (photos / "junk.png").write_bytes(b"no image at all")
    (photos / "notes.txt").write_text("not even called one")
    (tmp_path / "IMG_0002.JPG").write_bytes(content)
    code, out, err = call(capsys, finished, photos, tmp_path / "IMG_0002.JPG")
    rows = {Path(row["path"]).name: row for row in csv.DictReader(out.splitlines())}
    assert code == 1 and set(rows) == {"grey.png", "IMG_0001.JPG", "cut.jpg", "junk.png", "IMG_0002.JPG"}
    assert "3 of 5 images predicted" in err and "2 images cannot be read" in err
    assert all(f"cannot decode {photos / name}" in err for name in ("deep/cut.jpg", "junk.png"))
    same = [{key: value for key, value in rows[name].items() if key != "path"} for name in ("IMG_0001.JPG", "IMG_0002.JPG")]
    assert same[0] == same[1] and same[0]["label"] and rows["cut.jpg"]["label"] == ""


def test_what_people_said_counts(capsys, tmp_path):
    """Classes are labels, corrections replace them, and other answers are in `given`, in the pool and in a folder alike."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        Image.new("RGB", (32, 32), (20 * number, 99, 255 - 20 * number)).save(photos / f"{number:02d}.png")
    shutil.copy(photos / "03.png", photos / "copy.png")
    (photos / "classes.txt").write_text("cat\ndog\nowl\n")
    words = ("DATASET.NAME", "ImageFolder", "DATASET.IMAGEFOLDER.CLASSES", "classes.txt", "ACTIVE.ORACLE", "file",
             "ACTIVE.SAMPLER", "random", "ACTIVE.QUERY_SIZE", "5")
    folder = run(photos, tmp_path / "run", *words)
    said = ["owl", "!none", "!skip", "!unsure dog", "cat"]
    sheet, names = folder / "queries" / "round_000.csv", []
    for round, answers in enumerate((said, ["dog"] * 5)):
        rows = list(csv.DictReader((folder / "queries" / f"round_00{round}.csv").read_text().splitlines()))
        names.append([row["path"] for row in rows])
        extra = [(names[0][4], "dog")] if round else []
        answers = [*zip(names[round], answers, strict=True), *extra]
        sheet = folder / "queries" / f"round_00{round}.csv"
        sheet.write_text("path,label\n" + "".join(f"{name},{answer}\n" for name, answer in answers))
        if not round:
            run(photos, folder, *words)  # it waits for the second answers, and is of use already
            rows = {row["path"]: row for row in predicted(capsys, tmp_path, folder)}
            assert rows[names[0][4]]["label"] == "cat"
    run(photos, folder, *words)
    for images in ((), (photos,)):
        rows = {Path(row["path"]).name: row for row in predicted(capsys, tmp_path, folder, *images)}
        assert len(rows) == 13 and "copy.png" in rows  # also the copy that nobody was asked about
        given = [rows[name]["given"] for name in names[0]]
        assert given == ["yes", "none", "skip", "unsure dog", "yes"]
        assert [rows[names[0][place]]["label"] for place in (0, 4)] == ["owl", "dog"]
        assert all(rows[name]["given"] == "yes" and rows[name]["label"] == "dog" for name in names[1])
        assert sum(row["given"] == "no" for row in rows.values()) == 3
    assert call(capsys, folder, "--sort-into", tmp_path / "sorted")[0] == 0
    assert len(list((tmp_path / "sorted").glob("*/*.png"))) == 12  # that of none of the classes is in no folder
    assert not list((tmp_path / "sorted").glob(f"*/{names[0][1]}"))


def test_sorted_links_and_tasks(capsys, root, tmp_path, finished):
    """Each image is in the folder of its label, as a working link, and Label Studio's tasks agree."""
    rows = predicted(capsys, tmp_path, finished, "--split", "val", "--sort-into", tmp_path / "sorted",
                     "--label-studio", tmp_path / "tasks.json")
    assert sorted(path.name for path in (tmp_path / "sorted").iterdir()) == sorted(CLASSES)
    for row in rows:
        link = tmp_path / "sorted" / row["label"] / Path(row["path"]).name
        assert link.is_symlink() and link.read_bytes() == (root / row["path"]).read_bytes()
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [(task["data"]["path"], task["predictions"][0]["result"][0]["value"]["choices"][0], task["predictions"][0]["score"])
            for task in tasks] == [(row["path"], row["label"], float(row["confidence"])) for row in rows]
    assert tasks[0]["data"]["image"] == f"/data/local-files/?d={rows[0]['path']}"


def test_paths_of_tasks_are_relative_to_the_folder_that_was_named(capsys, root, tmp_path, finished):
    assert call(capsys, finished, root / "digits" / "images" / "one", "--label-studio", tmp_path / "tasks.json")[:2] == (0, "")
    paths = [task["data"]["path"] for task in json.loads((tmp_path / "tasks.json").read_text())]
    assert paths and paths == sorted(path.name for path in (root / "digits" / "images" / "one").iterdir())


def test_a_learner_of_a_plugin_is_imported_only_if_it_is_named_again(capsys, root, tmp_path):
    """A record may come from anybody, so its plug-ins are not trusted."""
    plugin = tmp_path / "mine.py"
    plugin.write_text('''
from trainers.learner import LEARNERS, Learner, template_rows

@LEARNERS.register("Mine")
class Mine(Learner):
    def __init__(self, clip, texts, rng, *, template: str = "a photo of a {}."):
        super().__init__()
        self.rows = template_rows(clip.tokenizer, texts.classnames, template)
''')
    words = ("ACTIVE.PLUGINS", f"['{plugin}']", "TRAINER.NAME", "Mine", "ACTIVE.SAMPLER", "random")
    folder = run(root, tmp_path / "run", *words)
    script = [sys.executable, str(PROJECT / "scripts" / "predict.py"), str(folder), "--split", "val"]
    done = commands.run(script, capture_output=True, text=True)
    assert done.returncode == 2 and "name them again: ACTIVE.PLUGINS" in done.stderr and not done.stdout
    again = commands.run([*script, "--set", "ACTIVE.PLUGINS", f"['{plugin}']"], capture_output=True, text=True)
    assert again.returncode == 0 and len(again.stdout.splitlines()) == 151, again.stderr


def test_a_run_of_before_files_said_their_template(capsys, root, tmp_path, finished):
    """The template then comes from the data set. A learner whose texts are made with it needs it."""
    folder = run(root, tmp_path / "run", "TRAINER.NAME", "GDA", "ACTIVE.SAMPLER", "random")
    before, file = predicted(capsys, tmp_path, folder), folder / "prompts" / "round_001.safetensors"
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["belongs_to"])
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    assert about.pop("template") == "a photo of the digit {}."
    save_file(state, file, metadata={"belongs_to": json.dumps(about)})
    edit(folder / "results.json", lambda content: content["rounds"][1]["files"].update(
        {"prompts/round_001.safetensors": sha256_of(file)}))
    assert predicted(capsys, tmp_path, folder) == before


def test_images_are_streamed(capsys, monkeypatch, tmp_path, finished):
    """Only a few batches of images are in memory, however many there are: decoding keeps pace with the model."""
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (32, 32), (200, 0, 0)).save(photos / "0000.png")
    for number in range(1, 1200):
        os.link(photos / "0000.png", photos / f"{number:04d}.png")
    seen, most = [0, 0], [0]
    read, logits = store.read_image, PromptedCLIP.logits
    monkeypatch.setattr(store, "read_image", lambda *words: (seen.__setitem__(0, seen[0] + 1), read(*words))[1])

    def counted(model, features, classifier):
        most[0] = max(most[0], seen[0] - seen[1])
        seen[1] += len(features)
        return logits(model, features, classifier)

    monkeypatch.setattr(PromptedCLIP, "logits", counted)
    assert len(predicted(capsys, tmp_path, finished, photos)) == 1200
    assert seen == [1200, 1200] and 100 <= most[0] <= 400


def test_the_lines_of_the_documentation_run(capsys, monkeypatch, tmp_path, finished):
    """They run as written, with `output/photos` as a run."""
    text = (PROJECT / "docs/use.md").read_text()
    code = next(block.split("```")[0] for block in text.split("```python\n") if "Classifier.load" in block)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "photos").symlink_to(finished)
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", (40, 50), (200, 0, 0)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "use.md", "exec"), names)
    names["Image"].open("b.png").close()
    assert names["probabilities"].shape == (2, 10) and "'zero', 'one'" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "said", "code"), [
    (["nowhere"], "nowhere is neither the output folder of a run nor a file of its prompts", 1),
    (["."], ". is neither the output folder of a run", 1),
    (["{run}/log.txt"], "log.txt is neither the output folder", 1),
    (["{run}/prompts/round_009.safetensors"], "round_009.safetensors is neither the output folder", 1),
    (["{begun}"], "has not finished its first round", 1),
    (["{run}", "nowhere"], "there is no nowhere to be predicted", 1),
    (["{run}", "{tmp}/empty"], "empty holds no images; they are known by their ends (.avif, .bmp", 1),
    (["{run}", "--copy"], "--copy goes with --sort-into", 2),
    (["{run}", "--split", "val", "images"], "--split names a split of the run's own data set", 2),
    (["{run}", "--split", "all"], "invalid choice: 'all'", 2),
    (["{run}", "--nothing"], "unrecognized arguments: --nothing", 2),
    ([], "the following arguments are required: RUN\n", 2),
    (["{run}", "--output", "{tmp}"], "must be a file", 2),
    (["{run}", "--output", "/dev/null/x.csv"], "cannot write /dev/null/x.csv", 1),
    (["{run}", "--sort-into", "{run}"], "holds files already; name a new one", 1),
    (["{run}", "--sort-into", "{run}/log.txt"], "log.txt: Not a directory; name a new folder", 1),
    (["{run}", "{tmp}/photos", "--sort-into", "{tmp}/photos/sorted"], "whose images are predicted; name a folder elsewhere", 1),
    (["{run}", "--set", "MODEL.BACKBONE.PRETRAINED", "gone.safetensors"], "'gone.safetensors' is neither a file nor a tag", 2),
    (["{run}", "--set", "NO.KEY", "1"], "unknown key NO", 2),
    (["{run}", "--set", "TRAINER.COOP.N_CTX", "3"], "prompts of another shape", 1),
])
def test_wrong_usage_is_one_line(capsys, tmp_path, finished, words, said, code):
    """There is no traceback, exit codes are those of the other commands, and nothing is written."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "photos" / "a.png")
    if "{begun}" in words:
        shutil.copytree(finished, tmp_path / "begun")
        cut_back(tmp_path / "begun" / "results.json", 0)
    before = sorted(tmp_path.rglob("*"))
    found, out, err = call(capsys, *(word.format(run=finished, begun=tmp_path / "begun", tmp=tmp_path) for word in words))
    assert (found, out) == (code, "") and said in err and err.startswith("predict.py: ") and len(err.splitlines()) == 1, err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_data_set_of_other_classes_is_refused(capsys, tmp_path, finished):
    """Its labels would be taken for those of the run."""
    for name in "bc":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (32, 32)).save(tmp_path / "photos" / name / f"{number}.png")
    code, _, err = call(capsys, finished, "--root", tmp_path / "photos", "--set", "DATASET.NAME", "ImageFolder")
    assert code == 1 and "has other classes now than the run was trained on" in err and len(err.splitlines()) == 1


def test_an_unreadable_folder_is_one_line(capsys, tmp_path, finished):
    (tmp_path / "photos").symlink_to(tmp_path / "photos")
    code, out, err = call(capsys, finished, tmp_path / "photos")
    assert (code, out) == (1, "") and err.startswith("predict.py: cannot look at") and len(err.splitlines()) == 1


def test_ctrl_c_leaves_no_part_of_an_output(capsys, monkeypatch, tmp_path, finished):
    """Neither half a table nor half a folder."""
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("trainers.core.classifier.Classifier.of_inputs", stop)
    outputs = ("--output", tmp_path / "a.csv", "--sort-into", tmp_path / "sorted", "--label-studio", tmp_path / "tasks.json")
    code, out, err = call(capsys, finished, *outputs)
    assert (code, out) == (130, "") and "stopped by Ctrl-C" in err and list(tmp_path.iterdir()) == []


def test_a_reader_that_has_gone_is_no_error(finished):
    """An example is `predict.py RUN | head`."""
    script = f"{sys.executable} {PROJECT / 'scripts' / 'predict.py'} {finished} 2>&1 | head -2"
    done = subprocess.run(script, shell=True, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 2 and "Traceback" not in done.stdout + done.stderr
