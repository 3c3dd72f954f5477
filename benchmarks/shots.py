"""CoOp on real ViT-B/32 features with the surrogate text tower: few-shot accuracies beside those of its maker.

    python -m benchmarks.shots > benchmarks/shots.md
    python -m benchmarks.shots --recipe coop     # with CoOp's own recipe; ten minutes

The maker's recipe is not stated. Taken here, for every setting alike: 100 steps of SGD on all labels at once, learning rate
0.002, momentum 0.9, weight decay 5e-4, cosine without warm-up, 4 random words, labels drawn from the val split. CoOp's is
batch 32, one warm-up epoch and 50 / 100 / 200 epochs with 1 / 4 / 8 labels a class. Neither augments: there are features alone.
Mean and standard deviation over seeds 1, 2, 3. Reads `../shared/data`.
"""

import argparse
from typing import Literal

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.surrogate import RealFeatures, build_feature_trainer, load_features, load_text_tower
from dassl.config.cli import Pairs
from dassl.config.setup import setup_config
from dassl.utils.seeding import rng_for
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.registry import LEARNERS

Recipe = Literal["steps", "coop"]
COOP_EPOCHS = {1: 50, 4: 100, 8: 200}
REFERENCE = {"caltech101": {1: 73.5, 4: 77.2, 8: 79.3}, "dtd": {1: 25.3, 4: 30.9, 8: 32.8}}  # from the data's README
SEEDS = (1, 2, 3)


def few_shot_accuracy(clip: FrozenCLIP, data: RealFeatures, shots: int, seed: int, recipe: Recipe = "steps") -> float:
    """Return the test accuracy in percent of CoOp trained on `shots` labels a class."""
    cfg = setup_config([], [("TRAINER.COOP.N_CTX", "4"), ("SEED", str(seed)), *recipe_pairs(recipe, shots)], [LEARNERS])
    trainer, labels = build_feature_trainer(cfg, clip, data), data.dataset.labels("train")
    rng = rng_for(seed, "shots")
    chosen = [rng.permutation(np.flatnonzero(labels.numpy() == label))[:shots] for label in range(len(data.dataset.classnames))]
    rows = torch.from_numpy(np.sort(np.concatenate(chosen)))
    logits = trainer.predict(trainer.fit(rows, labels[rows], 0), "test").logits
    return 100 * (logits.argmax(1) == data.dataset.labels("test")).double().mean().item()


def recipe_pairs(recipe: Recipe, shots: int) -> Pairs:
    """Return what a recipe changes of the defaults, which are CoOp's. An epoch of all labels at once is one step."""
    if recipe == "coop":
        return [("OPTIM.MAX_EPOCH", str(COOP_EPOCHS[shots]))]
    return [("OPTIM.MAX_EPOCH", "100"), ("OPTIM.WARMUP_EPOCH", "0"), ("DATALOADER.TRAIN_X.BATCH_SIZE", "1000")]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", choices=("steps", "coop"), default="steps")
    recipe = parser.parse_args().recipe
    torch.set_num_threads(1)
    clip, rows = load_text_tower(), []
    for name, expected in REFERENCE.items():
        data = load_features(name)
        for shots, reference in expected.items():
            accuracies = [few_shot_accuracy(clip, data, shots, seed, recipe) for seed in SEEDS]
            rows.append([name, shots, f"{np.mean(accuracies):.1f} ± {np.std(accuracies, ddof=1):.1f}",
                         reference, np.mean(accuracies) - reference])
    print("# CoOp on real features\n\nCommand: `python -m benchmarks.shots > benchmarks/shots.md`\n")
    print("Test accuracy in %, mean ± standard deviation over seeds 1, 2, 3. The text tower is a small surrogate, not CLIP's: "
          "the figures say that training goes where the maker's own training went, not what CLIP reaches. \"reference\" are "
          f"the maker's figures, whose recipe is not stated; ours is \"{recipe}\" of `benchmarks/shots.py`.\n")
    print(tabulate(rows, ["data set", "labels a class", "ours", "reference", "difference"], tablefmt="github",
                   floatfmt=("", "", "", ".1f", "+.1f")))


if __name__ == "__main__":
    main()
