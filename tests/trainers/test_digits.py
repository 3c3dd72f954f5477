"""Learners of image prompts improve on zero-shot on the embedded digits, with the configs that say so."""

from pathlib import Path

import pytest
import torch

from dassl.utils.held import Held
from dassl.utils.seeding import rng_for
from trainers.core import job
from trainers.core.build import build_trainer

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "n_epochs"), [
    ("VPT", 8), ("MaPLe", 8), ("IVLP", 8), ("PromptSRC", 12), ("CLIPLoRA", 12), ("DualPrompt", 15)])
def test_ten_percent_of_the_labels_help_clearly(root, name, n_epochs):
    """With 120 labels at random and a few of the config's 50 epochs, accuracy is at least 8 points above zero-shot."""
    files = [str(PROJECT / "configs" / file) for file in ("quickstart.yaml", f"trainers/{name}/tiny_clip.yaml")]
    words = ["--config-file", *files, "--root", str(root), "OPTIM.MAX_EPOCH", str(n_epochs)]
    cfg = job.build_config(*job.parser().parse(words))
    files, inputs = job.prepared(cfg, Held())
    dataset = files.dataset
    trainer, labels = build_trainer(cfg, inputs), dataset.labels("train")
    rows = torch.from_numpy(rng_for(0, "test rows").permutation(len(labels))[:120]).sort().values
    before, after = ((trainer.predict(model, "test").logits.argmax(1) == dataset.labels("test")).double().mean()
                     for model in (trainer.zero_shot(), trainer.fit(rows, labels[rows], 0)))
    assert after > before + 0.08
