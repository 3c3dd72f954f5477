"""What the seeds of k-means are worth to CB's first round on real ViT-B/32 features, plain, greedy and scikit-learn's own.

    OMP_NUM_THREADS=1 python -m benchmarks.seeds

Round 0, K = B = the number of classes, 12 seeds: k-means over the class-guided features of zero-shot CLIP, one image of each
cluster. Printed are means over seeds of the inertia, the classes among the images picked, and the test accuracy of the
nearest class mean, classes without a pick left out. Reads `../shared/data` through the surrogate text tower, see
`benchmarks/surrogate.py`. Besides, for K a sixth, one and three times the classes on the image features alone, how far the
inertia is above that of scikit-learn's own k-means, means of three seeds.
"""

import time
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

import active.kernels.k_means as clustering
from active.context import SelectionContext
from active.kernels.k_means import k_means_seeds, lloyd, nearest_members
from active.samplers.cb import class_guided_features
from benchmarks.surrogate import NAMES, RealFeatures, load_features, load_text_tower
from dassl.utils.seeding import rng_for
from trainers.clip.frozen_clip import FrozenCLIP, normalized
from trainers.core.token_rows import template_rows

SEEDINGS = ("plain", "greedy", "greedy, several a pass", "scikit-learn's own")
N_SEEDS = 12


def first_round(data: RealFeatures, clip: FrozenCLIP) -> SelectionContext:
    """Return what CB sees before there is a label: features and the logits of the template's texts."""
    features, names = data.features["train"], data.dataset.classnames
    with torch.no_grad():
        texts = normalized(clip.encode_text(template_rows(clip.tokenizer, names, data.dataset.template)))
    logits, none = clip.logit_scale * features @ texts.T, torch.empty(0, dtype=torch.int64)
    return SelectionContext(
        ids=torch.arange(len(features)), features=features, logits=logits, zero_shot_logits=logits, labeled_ids=none,
        labeled_features=features[:0], labeled_logits=logits[:0], labels=none, text_features=texts, n_query=len(names),
        round=0, n_total=len(features), rng=rng_for(0, "benchmark"))


def k_means_by(seeding: str, rows: Tensor, k: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Return centers, assignment and seconds of seeding (of all of k-means for scikit-learn's own)."""
    start, weights = time.process_time(), torch.ones(len(rows))
    if seeding == SEEDINGS[-1]:
        with threadpool_limits(1):
            model = KMeans(k, n_init=1, random_state=seed).fit(rows.numpy())
        centers, assignment = torch.from_numpy(model.cluster_centers_), torch.from_numpy(model.labels_).long()
        return centers, assignment, time.process_time() - start
    changed = {"n_candidates": lambda k: 1} if seeding == "plain" else {}
    with mock.patch.multiple(clustering, SKLEARN_LIMIT=0 if "pass" in seeding else 2**60, **changed):
        seeds = rows[k_means_seeds(rows, k, np.random.default_rng(seed), weights)]
    seconds = time.process_time() - start
    return *lloyd(rows, seeds, weights), seconds


def inertia_of(rows: Tensor, centers: Tensor, assignment: Tensor) -> float:
    """Return the sum of squared distances to the own center."""
    return float((rows - centers[assignment]).square().sum())


def worth(data: RealFeatures, ctx: SelectionContext, seeding: str, seed: int) -> tuple[float, ...]:
    """Return inertia, classes picked, accuracy of the nearest class mean in percent, and seconds of seeding."""
    rows = class_guided_features(ctx, "concat")
    centers, assignment, seconds = k_means_by(seeding, rows, ctx.n_query, seed)
    picked = torch.stack([members[0] for members in nearest_members(rows, centers, assignment)])
    labels = torch.tensor([item.label for item in data.dataset.train])[picked]
    hit, members = labels.unique(return_inverse=True)
    means = F.normalize(F.one_hot(members).float().T @ ctx.features[picked], dim=1)
    truth = torch.tensor([item.label for item in data.dataset.test])
    accuracy = (hit[(data.features["test"] @ means.T).argmax(1)] == truth).float().mean()
    return inertia_of(rows, centers, assignment), len(hit), 100 * float(accuracy), seconds


def main() -> None:
    torch.set_num_threads(1)
    clip, sets = load_text_tower(), {name: load_features(name) for name in NAMES}
    print("| data set | N | K | seeds | inertia | classes | nearest mean, % | seeding, s of a core |\n" + "|---" * 8 + "|")
    for name, data in sets.items():
        ctx = first_round(data, clip)
        for seeding in SEEDINGS:
            values = np.mean([worth(data, ctx, seeding, seed) for seed in range(N_SEEDS)], axis=0)
            seconds = f"{values[3]:.2f}" if seeding != SEEDINGS[-1] else ""
            size, (inertia, classes, accuracy, _) = f"{name} | {ctx.n_pool} | {ctx.n_query}", values
            print(f"| {size} | {seeding} | {inertia:.2f} | {classes:.1f} | {accuracy:.1f} | {seconds} |", flush=True)
    print("\n| data set | K | " + " | ".join(SEEDINGS[:-1]) + " |\n" + "|---" * 5 + "|")
    for name, data in sets.items():
        rows, n_classes = data.features["train"], len(data.dataset.classnames)
        for k in (n_classes // 6, n_classes, 3 * n_classes):
            means = [np.mean([inertia_of(rows, *k_means_by(seeding, rows, k, seed)[:2]) for seed in range(3)])
                     for seeding in SEEDINGS]
            print(f"| {name} | {k} | " + " | ".join(f"{100 * (mean / means[-1] - 1):+.2f} %" for mean in means[:-1]) + " |",
                  flush=True)


if __name__ == "__main__":
    main()
