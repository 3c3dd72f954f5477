"""Whole runs on real photographs of Caltech101, with the embedded tiny CLIP at its own 32 pixels, as the quickstart does.

The tiny CLIP has never seen photographs, so that its accuracies here mean nothing; what is held is that the run is whole
and that prompts learn what is labeled.
"""

import json
import math
from pathlib import Path

import pytest
import torch.nn.functional as F
from torch import arange

import train
from dassl.data import store
from dassl.utils.held import Held
from trainers.core import job
from trainers.core.build import build_trainer

PROJECT = Path(__file__).parents[2]
LEARNERS = [pytest.param(["CoOp"], id="CoOp"), pytest.param(["VPT", "TRAINER.VPT.PROMPT_DEPTH", "4"], id="VPT")]


@pytest.fixture(scope="module")
def root(real_data, tmp_path_factory) -> Path:
    """A data root in CoOp's layout, with a link to the real images."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "caltech-101").symlink_to(real_data / "caltech101_small")
    return folder


def words(root: Path, learner: list[str], *more: str) -> list[str]:
    return ["--config-file", str(PROJECT / "configs/quickstart.yaml"), str(PROJECT / "configs/datasets/caltech101.yaml"),
            "--root", str(root), "--trainer", *learner,
            "INPUT.TRANSFORMS", "('random_resized_crop', 'random_flip', 'normalize')", "OPTIM.MAX_EPOCH", "5", *more]


@pytest.mark.parametrize("learner", LEARNERS)
def test_two_rounds_on_real_photographs_run_through(root, tmp_path, learner, monkeypatch):
    """600 pool and 400 test images of 100 classes; 100 labels; every image that training needs is decoded once."""
    decoded = []
    read_image = store.read_image
    arguments = words(root, learner, "--output-dir", str(tmp_path), "ACTIVE.ROUNDS", "2", "ACTIVE.QUERY_SIZE", "50")
    monkeypatch.setattr(store, "read_image", lambda path, decoding: decoded.append(str(path)) or read_image(path, decoding))
    assert train.main(arguments) == 0
    result = json.loads((tmp_path / "results.json").read_text())
    assert result["status"] == "finished"
    assert (result["dataset"]["n_train"], result["dataset"]["n_test"], result["dataset"]["n_classes"]) == (600, 400, 100)
    asked = [path for record in result["rounds"] for path in record["queried"]]
    assert len(set(asked)) == len(asked) == result["rounds"][-1]["n_paid"] == 100
    assert all((root / path).is_file() for path in asked)
    assert all(math.isfinite(record["metrics"]["accuracy"]) for record in result["rounds"])
    assert max(decoded.count(str(root / path)) for path in asked) <= 3  # features, views, and for VPT the fixed view


@pytest.mark.parametrize("learner", LEARNERS)
def test_prompts_learn_what_is_labeled(root, learner):
    """The loss on 64 labeled photographs falls below that of the model that has seen no label."""
    cfg = job.build_config(*job.parser().parse(words(root, learner, "OPTIM.MAX_EPOCH", "15", "OPTIM.LR", "0.02")))
    cfg.INPUT.TRANSFORMS = ()
    cfg.freeze()
    files, inputs = job.prepared(cfg, Held())
    dataset = files.dataset
    trainer = build_trainer(cfg, inputs)
    rows = arange(0, 600, 9)[:64]
    labels = dataset.labels("train")[rows]

    def loss_of(model) -> float:
        return F.cross_entropy(trainer.predict(model, "train").logits[rows], labels).item()

    assert loss_of(trainer.fit(rows, labels, 0)) < loss_of(trainer.zero_shot()) - 1
