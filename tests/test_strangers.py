"""A stranger adds a sampler, a learner, a trainer, a data set, a metric, a recorder and an oracle, each by one file."""

import json

import pytest

import train
from dassl.data.dataset import DATASETS
from scripts import predict
from trainers.core import job

PARTS = {
    "sampler": """
from active.registry import SAMPLERS

@SAMPLERS.register("last_rows")
def last_rows(ctx, *, step: int = 1):
    return (ctx.n_pool - 1 - step * __import__("torch").arange(ctx.n_query)).clamp(min=0)
""",
    "learner": """
import torch
from torch import nn
from trainers.learner import LEARNERS, Classifier, Learner, template_rows

@LEARNERS.register("Shifted")
class Shifted(Learner):
    def __init__(self, clip, texts, rng, *, template: str = "a photo of a {}."):
        super().__init__()
        self.rows = template_rows(clip.tokenizer, texts.classnames, template)
        self.shift = nn.Parameter(torch.zeros(len(texts.classnames), clip.feature_width))

    def classifier(self, texts):
        return Classifier(texts.texts + self.shift)
""",
    "trainer": """
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from trainers.registry import TRAINERS

@dataclass
class Seen:
    features: Tensor
    logits: Tensor
    text_features: Tensor

@TRAINERS.register("NearestMean")
class NearestMean:
    def __init__(self, setting, *, scale: float = 20.0):
        self.features, self.scale = setting.inputs.features, scale
        self.n_classes = len(setting.texts.classnames)

    def zero_shot(self):
        return torch.zeros(self.n_classes, self.features["train"].shape[1])

    def fit(self, rows, labels, round):
        means = self.zero_shot()
        for label in labels.unique():
            means[label] = self.features["train"][rows[labels == label]].mean(0)
        return means

    def predict(self, model, split):
        return Seen(self.features[split], self.scale * self.features[split] @ model.T, model)

    def save(self, model, path):
        path.parent.mkdir(exist_ok=True)
        save_file({"means": model}, path)

    def load(self, path):
        return load_file(path)["means"]
""",
    "data_set": """
from pathlib import Path

import numpy as np
from PIL import Image
from dassl.data.dataset import DATASETS, Dataset, Datum

@DATASETS.register("Squares")
def squares(root: Path, *, n_images: int = 40) -> Dataset:
    items, rng = {"train": [], "test": []}, np.random.default_rng(0)
    (root / "squares").mkdir(exist_ok=True)
    for index in range(n_images):
        color = [(60, 60, 60), (230, 230, 230)][index % 2]
        path = f"squares/{index:03d}.png"
        if not (root / path).exists():
            pixels = np.full((20, 20, 3), color) + rng.integers(-20, 20, (20, 20, 3))
            Image.fromarray(pixels.astype("uint8")).save(root / path)
        items["test" if index % 5 > 2 else "train"].append(Datum(path, index % 2))
    return Dataset("Squares", root, items["train"], [], items["test"], ["dark square", "bright square"])
""",
    "metric": """
import numpy as np
from dassl.evaluation.metrics import METRICS

@METRICS.register("log_loss", title="log loss", percent=False, lower_is_better=True)
def log_loss(probs, labels, *, floor: float = 1e-12):
    return float(-np.log(probs[np.arange(len(labels)), labels].clip(floor)).mean())
""",
    "recorder": """
from pathlib import Path
from active.record.recorders import RECORDERS, Recorder

@RECORDERS.register("lines")
class Lines(Recorder):
    def __init__(self, output: Path, *, name: str = "lines.txt"):
        self.file, self.lines = output / "recorders" / name, []

    def begin(self, result):
        self.lines.append("begin")

    def add_round(self, result, losses):
        record, n_epochs = result.rounds[-1], len(losses.get("fit", ()))
        self.lines.append(f"{record.round} {record.metrics['log_loss']:.3f} {n_epochs}")

    def end(self, result):
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(" | ".join([*self.lines, result.status]))
""",
    "oracle": """
from active.oracles.oracle import ORACLES, Oracle

class Liar(Oracle):
    def label(self, rows):
        return 1 - super().label(rows)

@ORACLES.register("liar")
def liar(setting, *, seed: int = 0):
    return Liar(setting.labels, setting.budget)
""",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the files of all plug-ins. Later tests find only the project's own components."""
    folder = tmp_path_factory.mktemp("strange")
    for name, text in PARTS.items():
        (folder / f"{name}.py").write_text(text)
    for registry in job.REGISTRIES:
        registry.fill()
    before = [dict(registry._components) for registry in job.REGISTRIES]
    yield sorted(folder.iterdir())
    for registry, components in zip(job.REGISTRIES, before, strict=True):
        registry._components = components


@pytest.fixture
def run(tmp_path, files, capsys):
    """Run the quickstart's config with all the files as plug-ins; return the record and the output folder."""

    def start(name, *words):
        output = tmp_path / name
        code = train.main([
            "--config-file", "configs/quickstart.yaml", "--root", str(tmp_path), "--output-dir", str(output), "ACTIVE.PLUGINS",
            str([str(path) for path in files]), "DATASET.NAME", "Squares", "ACTIVE.SAMPLER", "last_rows",
            "ACTIVE.INITIAL_SAMPLER", "last_rows", "ACTIVE.QUERY_SIZE", "3", "ACTIVE.ROUNDS", "2", "OPTIM.MAX_EPOCH", "3",
            "TEST.METRICS", "[accuracy, log_loss]", "LOG.RECORDERS", "[lines]", *words])
        assert code == 0, capsys.readouterr().err
        return json.loads((output / "results.json").read_text()), output

    return start


def test_all_of_them_work_together(run, capsys):
    """Picks are the sampler's, accuracy is above zero-shot, the metric is in record and table, and the recorder was called."""
    result, output = run("probe", "TRAINER.NAME", "Shifted", "ACTIVE.LAST_ROWS.STEP", "2", "LOG.LINES.NAME", "told.txt")
    assert result["rounds"][0]["queried"] == ["squares/037.png", "squares/035.png", "squares/031.png"]
    assert list(result["rounds"][0]["metrics"]) == ["accuracy", "log_loss"]
    first, second = (record["metrics"]["log_loss"] for record in result["rounds"])
    assert (output / "recorders" / "told.txt").read_text() == f"begin | 0 {first:.3f} 3 | 1 {second:.3f} 3 | finished"
    assert {"SHIFTED"} <= result["config"]["TRAINER"].keys() and result["config"]["TEST"]["LOG_LOSS"] == {"FLOOR": 1e-12}
    assert "log loss" in capsys.readouterr().out


def test_a_learner_that_is_no_prompt_learns(run):
    """Its predictions differ from zero-shot in some round."""
    result, _ = run("probe", "TRAINER.NAME", "Shifted", "ACTIVE.LAST_ROWS.STEP", "1")
    losses = [record["metrics"]["log_loss"] for record in result["rounds"]]
    assert losses[0] != losses[1] and result["rounds"][1]["metrics"]["accuracy"] > result["zero_shot"]["accuracy"]


def test_a_trainer_of_another_kind_and_a_stranger_s_oracle(run):
    """The trainer uses nearest class means of the given labels. With an oracle that lies, all are wrong."""
    honest, _ = run("honest", "TRAINER.NAME", "NearestMean", "TRAINER.NEARESTMEAN.SCALE", "50.0")
    lied, _ = run("lied", "TRAINER.NAME", "NearestMean", "ACTIVE.ORACLE", "liar")
    assert honest["rounds"][1]["metrics"]["accuracy"] == 1.0 and lied["rounds"][1]["metrics"]["accuracy"] == 0.0
    assert honest["config"]["TRAINER"]["NEARESTMEAN"] == {"SCALE": 50.0} and lied["config"]["ACTIVE"]["LIAR"] == {"SEED": 0}


def test_how_a_run_is_recorded_is_no_part_of_it(run):
    """Another name of the recorder's file is the same run, finished; another floor of the metric is not."""
    first, _ = run("probe", "TRAINER.NAME", "Shifted")
    again, output = run("probe", "TRAINER.NAME", "Shifted", "LOG.LINES.NAME", "other.txt")
    assert again == first and not (output / "recorders" / "other.txt").exists()
    with pytest.raises(AssertionError, match=r"TEST\.LOG_LOSS\.FLOOR"):
        run("probe", "TRAINER.NAME", "Shifted", "TEST.LOG_LOSS.FLOOR", "0.1")


def test_a_run_with_a_stranger_s_recorder_can_be_overwritten_and_evaluated(run, tmp_path, capsys):
    """Its recorder's files are part of the run. The evaluation needs neither recorder nor metric."""
    run("probe", "TRAINER.NAME", "CoOp")
    assert train.main(["--eval-only", "--model-dir", str(tmp_path / "probe")]) == 0, capsys.readouterr().err
    assert "accuracy" in capsys.readouterr().out
    run("probe", "TRAINER.NAME", "CoOp", "SEED", "2", "--overwrite")


def test_a_stranger_s_data_set_is_predicted(run, tmp_path, capsys, monkeypatch):
    """It may give lists. Where the plug-in is not imported, the error says how."""
    run("probe", "TRAINER.NAME", "CoOp")
    capsys.readouterr()
    words = [str(tmp_path / "probe"), "--split", "test"]
    assert predict.main(words) == 0 and capsys.readouterr().out.count("squares/") == 16
    monkeypatch.delitem(DATASETS._components, "Squares")
    assert predict.main(words) == 2
    assert "SQUARES" in (err := capsys.readouterr().err) and "behind --set" in err


@pytest.mark.parametrize(("words", "said"), [
    (("TEST.METRICS", "[accuracy, [ece]]"), "unknown metric"), (("LOG.RECORDERS", "[1]"), "unknown recorder 1"),
    (("TEST.METRICS", "[ece]"), "must hold accuracy"), (("TEST.METRICS", "[accuracy, acc]"), "unknown metric 'acc'"),
    (("ACTIVE.ORACLE", "liars"), "unknown oracle 'liars'"), (("TRAINER.NAME", "NearestMeen"), "unknown trainer 'NearestMeen'")])
def test_a_wrong_name_is_one_line(files, tmp_path, capsys, words, said):
    """The error comes before anything is loaded, whatever a list of names holds."""
    code = train.main(["--config-file", "configs/quickstart.yaml", "--output-dir", str(tmp_path / "run"), *words])
    assert code == 2 and said in (err := capsys.readouterr().err) and err.count("\n") == 1


def test_a_refused_config_moves_nothing_aside(run, tmp_path, capsys):
    """--overwrite renames the folder only once the new run can begin."""
    _, output = run("probe", "TRAINER.NAME", "CoOp")
    code = train.main(["--config-file", "configs/quickstart.yaml", "--root", str(tmp_path), "--output-dir", str(output),
                       "--overwrite", "TRAINER.NAME", "VPT", "TRAINER.VPT.PROMPT_DEPTH", "99"])
    assert code == 1 and "99 blocks" in capsys.readouterr().err and output.is_dir()
