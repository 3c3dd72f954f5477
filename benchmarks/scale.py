"""Samplers on pools of ImageNet's size: seconds and memory of each, and how far approximate picks are from exact ones.

    python -m benchmarks.scale output/scale --samplers cec probcover uherding      1,281,167 x 512 float16, 1,000 classes
    python -m benchmarks.scale output/scale --overlap --n 50000 --classes 100 --queries 500 --samplers cec maxherding

The first makes the table of 1.28 million images, the second that of picks against exact ones, both in `samplers.md`.
Images are made from real ViT-B/32 features (`../shared/data`, see `benchmarks/surrogate.py`), clustered into as many classes as
are asked for: each is a mixture of two rows of a class plus noise of 0.55 of each coordinate's deviation. The median cosine to
the nearest image is 0.88 then (50,000 images, 100 classes). Logits are 100 times the cosines to noisy class means. One
image of each class is labeled. Each sampler runs in a process of its own. Neighbor lists and clusters are kept in the folder
(`active.relations`), so that the first sampler that needs them makes them and others read them.
"""

import argparse
import json
import logging
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from active.context import SelectionContext
from active.kernels.k_means import k_means
from active.kernels.scores import row_blocks, smallness_of_margin
from active.relations import Relations
from active.samplers.uherding import labeled_radius
from active.selection import select
from active.testing import sampler_by_name
from dassl.utils.environment import forget_peak, peak_resident_mb
from dassl.utils.seeding import rng_for

N, N_CLASSES, WIDTH, THREADS, NOISE = 1_281_167, 1000, 512, 2, 0.55
DRAW_NOTHING = ("maxherding", "uherding")  # while they are exact, so that their picks are the same for all seeds


def made(folder: Path, n: int, n_classes: int, seed: int = 0) -> dict[str, Tensor]:
    """Return `features`, `logits` (both mapped float16 files), `labels` and `texts` of a pool, made if they are not there."""
    files = {name: (folder / f"{n}_{n_classes}_{seed}_{name}.f16", (n, width)) for name, width in
             (("features", WIDTH), ("logits", n_classes))}
    rest = folder / f"{n}_{n_classes}_{seed}.safetensors"
    is_new = not rest.exists()
    found = {name: torch.from_numpy(np.memmap(path, np.float16, "w+" if is_new else "r+", shape=shape))
             for name, (path, shape) in files.items()}
    if is_new:
        save_file(fill(found, n_classes, torch.Generator().manual_seed(seed)), rest)
    return found | load_file(rest)


def fill(found: dict[str, Tensor], n_classes: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Write features and logits of new images, the last of them one a class; return `labels` and `texts`."""
    from benchmarks.surrogate import NAMES, load_features

    n, rows = len(found["features"]), torch.cat([own for name in NAMES for own in load_features(name).features.values()])
    centers, classes = k_means(rows, n_classes, np.random.default_rng(0))
    texts = F.normalize(F.normalize(centers, dim=1) + 0.02 * torch.randn(centers.shape, generator=generator), dim=1)
    labels = torch.cat([torch.randint(n_classes, (n - n_classes,), generator=generator), torch.arange(n_classes)])
    for block in row_blocks(n, WIDTH):
        found["features"][block] = own = mixed(rows, classes, labels[block], generator)
        found["logits"][block] = 100 * own @ texts.T
    return {"labels": labels, "texts": texts}


def mixed(rows: Tensor, classes: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return new rows [n, D] of these classes."""
    order, counts = classes.argsort(stable=True), classes.bincount()
    starts, n = counts.cumsum(0) - counts, len(labels)
    one, other = (rows[order[starts[labels] + (torch.rand(n, generator=generator) * counts[labels]).long()]] for _ in range(2))
    share, noise = torch.rand(n, 1, generator=generator), torch.randn(n, rows.shape[1], generator=generator)
    return F.normalize(share * one + (1 - share) * other + NOISE * rows.std(0) * noise, dim=1)


def context(folder: Path, n: int, n_classes: int, n_query: int) -> SelectionContext:
    """Return a pool of n images beside one labeled image a class."""
    own = made(folder, n + n_classes, n_classes)
    features, logits = own["features"], own["logits"]
    return SelectionContext(
        ids=torch.arange(n), features=features[:n], logits=logits[:n], zero_shot_logits=logits[:n],
        labeled_ids=torch.arange(n, len(features)), labeled_features=features[n:], labeled_logits=logits[n:],
        labels=own["labels"][n:], text_features=own["texts"], negative_text_features=own["texts"].roll(1, 0), n_query=n_query,
        round=1, n_total=len(features), rng=rng_for(0, "benchmark"), relations=Relations(features, folder / "relations"))


def one(folder: Path, name: str, n: int, n_classes: int, n_query: int) -> dict:
    """Return seconds, seconds of all cores and peak memory, mapped files included, of one selection; of the lists alone too."""
    torch.set_num_threads(THREADS)
    ctx, took = context(folder, n, n_classes, n_query), {}
    forget_peak()
    steps = {"graph": lambda: ctx.relations.neighbors(1)} if name in ("cec", "probcover") else {}
    for step, run in (steps | {"all else": lambda: select(sampler_by_name(name), ctx)}).items():
        start, cpu = time.perf_counter(), time.process_time()
        answer = run()
        took[step] = [round(time.perf_counter() - start), round(time.process_time() - cpu)]
    assert len(answer.rows) + len(answer.pseudo_rows) == n_query
    return {"sampler": name, "seconds": took, "peak_gib": round(peak_resident_mb() / 1024, 2), "n": n, "n_query": n_query,
            "approximation": answer.approximation}


def overlap(folder: Path, name: str, n: int, n_classes: int, n_query: int) -> str:
    """Return a row of the table: what approximate picks share with exact ones, and what two seeds of exact ones do."""
    torch.set_num_threads(THREADS)
    ctx, found, cpu = context(folder, n, n_classes, n_query), {}, {}
    for form, seed in (("exact", 0), ("exact", 1), ("approximate", 0), ("approximate", 1)):
        if form == "exact" and seed and name in DRAW_NOTHING:
            found[form, seed] = found[form, 0]
            continue
        start = time.process_time()
        sampler = sampler_by_name(name, max_pool=n if form == "exact" else 1)
        found[form, seed] = select(sampler, replace(ctx, rng=rng_for(seed, "benchmark")))
        cpu.setdefault(form, time.process_time() - start)
    rows = {key: set(query.rows.tolist()) for key, query in found.items()}
    shares = [len(rows[one] & rows[other]) / n_query for one, other in (
        (("exact", 0), ("approximate", 0)), (("exact", 0), ("exact", 1)), (("approximate", 0), ("approximate", 1)))]
    random = torch.from_numpy(rng_for(2, "benchmark").permutation(n)[:n_query])
    weights = found["exact", 0].pool_scores if name == "cec" else None
    exact, approximate, least = (covered(ctx, name, own, weights) for own in (
        found["exact", 0].rows, found["approximate", 0].rows, random))
    cells = [f"{n:,}", name, found["approximate", 0].approximation.get("recall", ""), *(f"{share:.2f}" for share in shares),
             f"{100 * (approximate - least) / (exact - least):.1f} %", f"{cpu['exact']:.0f}", f"{cpu['approximate']:.0f}"]
    return f"| {' | '.join(map(str, cells))} |"


def covered(ctx: SelectionContext, name: str, picked: Tensor, weights: Tensor | None) -> float:
    """Return how much of 5,000 random images picked and labeled ones cover, by what the sampler wants covered.

    These are weighted kernels; images inside balls of one radius (cosine 0.85) for `probcover`; for `cec` weighted squared
    distances, to picks alone.
    """
    rows = torch.from_numpy(rng_for(3, "benchmark").permutation(ctx.n_pool)[:5000])
    centers = torch.cat([ctx.features[picked], ctx.labeled_features]).float()
    nearest = (ctx.features[rows].float() @ centers.T).amax(1)
    if name == "probcover":
        return float((nearest > 0.85).float().mean())
    if name == "cec":
        nearest = (ctx.features[rows].float() @ ctx.features[picked].float().T).amax(1)
        return float((weights[rows] * nearest).sum() / weights[rows].sum())
    weights = smallness_of_margin(ctx.logits[rows]) if name == "uherding" else torch.ones(len(rows))
    radius = labeled_radius(ctx.labeled_features) if name == "uherding" else 1.0
    return float((weights * ((2 * nearest - 2) / radius**2).exp()).sum() / weights.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samplers", nargs="+", default=[])
    parser.add_argument("--n", type=int, default=N)
    parser.add_argument("--classes", type=int, default=N_CLASSES)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--overlap", action="store_true", help="compare picks with exact ones instead")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("faiss").setLevel(logging.WARNING)
    size = arguments.n, arguments.classes, arguments.queries
    for name in arguments.samplers:
        if arguments.overlap:
            print(overlap(arguments.folder, name, *size), flush=True)
            continue
        if arguments.one:
            print(json.dumps(one(arguments.folder, name, *size)), flush=True)
            continue
        words = [*sys.argv[1:2], "--one", "--samplers", name, "--n", size[0], "--classes", size[1], "--queries", size[2]]
        subprocess.run([sys.executable, "-m", "benchmarks.scale", *map(str, words)], check=False)


if __name__ == "__main__":
    main()
