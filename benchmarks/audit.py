"""How often the intervals of an audit hold the truth, and how wide they are, on real ViT-B/32 features.

    OMP_NUM_THREADS=1 python -m benchmarks.audit

Three data sets x three models (zero-shot by the surrogate tower, see `benchmarks/surrogate.py`; the MAP head on one and on four
labels a class) x audits of 20, 50 and 100 labels, each simulated 2,000 times: the reserved images are drawn with replacement
from all images that the model was not trained on, so that the accuracy on these is that on new images like them.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from active.audit import RESERVED, estimate
from benchmarks.learners import Cell, config_of
from benchmarks.surrogate import NAMES, build_feature_trainer, load_features, load_text_tower
from dassl.utils.seeding import rng_for

SIZES, SHOTS, N_SIMULATED = (20, 50, 100), (0, 1, 4), 2000


def predictions(name: str, shots: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence of a model in its guesses, and whether they are right, on images that it was not trained on."""
    data = load_features(name)
    cfg = config_of(Path("unused"), Cell(name, "per_class", "random", "masked", "LinearProbe", 1))
    trainer, labels = build_feature_trainer(cfg, load_text_tower(), data), data.dataset.labels("train")
    order = torch.from_numpy(rng_for(0, "audited model", name, shots).permutation(len(labels)))
    used, left = order.split([shots * len(data.dataset.classnames), len(order) - shots * len(data.dataset.classnames)])
    model = trainer.fit(used, labels[used], 0) if shots else trainer.zero_shot()
    logits = torch.cat([trainer.predict(model, "train").logits[left], trainer.predict(model, "test").logits])
    truth = torch.cat([labels[left], data.dataset.labels("test")])
    return logits.softmax(1).amax(1).numpy(), (logits.argmax(1) == truth).numpy()


def simulated(confidence: np.ndarray, right: np.ndarray, n: int, rng: np.random.Generator) -> dict[str, float]:
    """Return coverage, in percent, and mean width, in points, of both intervals over all simulations."""
    ends = []
    for _ in range(N_SIMULATED):
        rows = rng.integers(len(right), size=RESERVED * n)
        ends.append(estimate(confidence[rows], confidence[rows[:n]], right[rows[:n]]))
    frame, truth = pd.DataFrame(ends), right.mean()
    kinds = {"": "", "Wilson ": "wilson_"}
    return {f"{name}coverage": 100 * ((frame[f"{own}low"] <= truth) & (truth <= frame[f"{own}high"])).mean()
            for name, own in kinds.items()} | {
        f"{name}width": 100 * (frame[f"{own}high"] - frame[f"{own}low"]).mean() for name, own in kinds.items()}


def main() -> None:
    """Print a row for each cell, and the mean and the worst coverage of each size."""
    torch.set_num_threads(1)
    rows = []
    for name in NAMES:
        for shots in SHOTS:
            confidence, right = predictions(name, shots)
            known = {"data": name, "labels a class": shots, "accuracy": 100 * right.mean(),
                     "correlation": np.corrcoef(confidence, right)[0, 1]}
            rows += [known | {"audit": n} | simulated(confidence, right, n, rng_for(0, "audits", name, shots, n))
                     for n in SIZES]
    frame = pd.DataFrame(rows)
    print(frame.sort_values(["audit", "data"], kind="stable").to_markdown(index=False, floatfmt=".2f"))
    groups = frame.groupby("audit")
    print("\n" + groups.agg(mean=("coverage", "mean"), worst=("coverage", "min"), width=("width", "mean"),
                            wilson_mean=("Wilson coverage", "mean"), wilson_worst=("Wilson coverage", "min"),
                            wilson_width=("Wilson width", "mean")).to_markdown(floatfmt=".2f"))


if __name__ == "__main__":
    main()
