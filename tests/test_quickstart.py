"""The embedded default does what the README says: real images, a real but imperfect prior, labels that help."""

import json
from pathlib import Path

import pytest
import torch

from dassl.utils.held import Held
from dassl.utils.seeding import rng_for
from trainers.core import job
from trainers.core.build import build_trainer

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup(root):
    """The quickstart's data set and trainer."""
    cfg = config(root)
    files, inputs = job.prepared(cfg, Held())
    return files.dataset, build_trainer(cfg, inputs)


def config(root: Path):
    """Return the quickstart's config for a data root."""
    words = ["--config-file", str(PROJECT / "configs/quickstart.yaml"), "--root", str(root)]
    cfg = job.build_config(*job.parser().parse(words))
    cfg.freeze()
    return cfg


def accuracy(setup, model) -> float:
    dataset, trainer = setup
    return (trainer.predict(model, "test").logits.argmax(1) == dataset.labels("test")).float().mean().item()


def fitted(setup, n_labels: int, seed: int):
    dataset, trainer = setup
    rows = torch.from_numpy(rng_for(seed, "test rows").permutation(len(dataset.train))[:n_labels]).sort().values
    return trainer.fit(rows, dataset.labels("train")[rows], round=seed)


def test_zero_shot_knows_something_but_not_all(setup):
    """Zero-shot accuracy on the real digits lies between 45 % and 80 %."""
    assert 0.45 < accuracy(setup, setup[1].zero_shot()) < 0.80


def test_ten_percent_of_the_labels_help_clearly(setup):
    """CoOp with 10 % of the labels is at least 8 points above zero-shot, mean of 3 seeds, and 1 % is below 10 %."""
    zero_shot = accuracy(setup, setup[1].zero_shot())
    few, many = (sum(accuracy(setup, fitted(setup, n, seed)) for seed in range(3)) / 3 for n in (12, 120))
    assert many > zero_shot + 0.08 and many > few


def test_the_pool_is_sklearns_digits(setup):
    """1,797 images of ten classes, split 1,197 / 150 / 450; every class stands in every split."""
    dataset, _ = setup
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [1197, 150, 450]
    for name in ("train", "val", "test"):
        assert dataset.labels(name).bincount().min() >= 0.08 * len(dataset.split(name))
    rows = json.loads((dataset.root / "digits" / "split_digits.json").read_text())
    assert len({path for split in rows.values() for path, *_ in split}) == 1797


def test_fp32_is_fp32_on_gpus(setup):
    """TF32, which is on by default in cuDNN, is off before anything is computed."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    job.prepared(config(setup[0].root), Held())
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
