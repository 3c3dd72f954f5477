"""Time and peak memory of every sampler, and of the straightforward forms that three of them replace.

    python benchmarks/samplers.py --quick       a smoke test: small pools, half a minute
    python benchmarks/samplers.py               the table of benchmarks/samplers.md but its last part
    python benchmarks/samplers.py --growth      how time grows with N, B and C, from 25,000 rows
    python benchmarks/samplers.py --k-means     backends, seeds and numbers of steps: time, inertia, picks that differ
    python benchmarks/samplers.py --million     1,281,167 x 512 memory-mapped float16 features, 1,000 classes
    python benchmarks/samplers.py --device cuda the table with the pool on a card, and the card's memory

Each cell runs in a process of its own, so its peak memory is its own. Threads that wait for each other sleep
(OMP_WAIT_POLICY=PASSIVE): when other programs share the cores, spinning ones make short steps ten times slower. Data are
synthetic and unit norm: classes around a common direction, as CLIP's features are, so that cosines are positive; logits
are 100 times the cosines to noisy class means.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import active.kernels.k_means as clustering
from active.context import SelectionContext
from active.kernels.d2_sampling import squared_norms
from active.kernels.k_means import nearest_members
from active.kernels.neighbors import neighbors
from active.kernels.scores import residuals, row_blocks
from active.registry import choosing_samplers
from active.selection import select
from active.testing import sampler_by_name
from dassl.utils.errors import UserError
from dassl.utils.seeding import rng_for

WIDTH, THREADS, LIMIT_GIB = 512, 2, 12.0
SIZES = [(2820, 47, 28), (2820, 47, 47), (13500, 10, 135), (13500, 10, 10), (50000, 100, 500), (50000, 100, 100)]
GROWTH = [(25000, 100, 250), (50000, 100, 250), (25000, 100, 500), (25000, 200, 250)]
QUICK = [(500, 5, 10)]
MILLION = (1281167, 1000, 1000)
MILLION_SAMPLERS = ("random", "entropy", "margin", "pcb", "coreset", "alfa_mix", "badge", "typiclust", "cb", "cec", "probcover")
NEEDED_GIB = {  # memory of the straightforward forms
    "badge (dense)": lambda n, c, b: 4 * n * c * WIDTH / 2**30,
    "coreset (matrix)": lambda n, c, b: 4 * n * (n + c) / 2**30,
    "neighbors (matrix)": lambda n, c, b: (4 + 8) * n * n / 2**30,
}


def synthetic(n: int, n_classes: int, n_query: int, folder: Path | None = None) -> SelectionContext:
    """Return a pool of n rows and one labeled row a class; with a folder, its matrices are float16 files mapped from there."""
    rng = np.random.default_rng(0)
    common = F.normalize(torch.from_numpy(rng.normal(size=WIDTH)).float(), dim=0)
    means = common + 0.6 * F.normalize(torch.from_numpy(rng.normal(size=(n_classes, WIDTH))).float(), dim=1)
    texts = F.normalize(means + 0.02 * torch.from_numpy(rng.normal(size=means.shape)).float(), dim=1)
    negative = F.normalize(means + 0.03 * torch.from_numpy(rng.normal(size=means.shape)).float(), dim=1)
    total = n + n_classes
    shapes = {"features": (total, WIDTH), "logits": (total, n_classes)}
    stored = {name: folder / f"{name}.f16" if folder else None for name in shapes}
    matrices = {name: torch.from_numpy(np.memmap(path, np.float16, "r+" if path.exists() else "w+", shape=shapes[name]))
                if path else torch.empty(shapes[name]) for name, path in stored.items()}
    done = folder / "done" if folder else None
    if not (done and done.exists()):
        for block in row_blocks(total, max(WIDTH, n_classes)):
            truth = torch.from_numpy(rng.integers(n_classes, size=block.stop - block.start))
            noise = torch.from_numpy(rng.normal(size=(len(truth), WIDTH), scale=0.03)).float()
            features = F.normalize(means[truth] + noise, dim=1)
            matrices["features"][block], matrices["logits"][block] = features, 100 * features @ texts.T
        if done:
            done.touch()
    features, logits = matrices["features"], matrices["logits"]
    return SelectionContext(
        ids=torch.arange(n), features=features[:n], logits=logits[:n], zero_shot_logits=logits[:n],
        labeled_ids=torch.arange(n, total), labeled_features=features[n:], labeled_logits=logits[n:],
        labels=torch.arange(n_classes), text_features=texts, negative_text_features=negative, n_query=n_query, round=1,
        n_total=total, rng=rng_for(0, "benchmark"))


def dense_badge(ctx: SelectionContext) -> Tensor:
    """BADGE with all gradients in memory, N x (C D), and a distance to each at every pick."""
    gradients = (residuals(ctx.logits)[:, :, None] * ctx.features[:, None, :]).flatten(1)
    nearest, picked = torch.full((ctx.n_pool,), torch.inf), [int(squared_norms(gradients).argmax())]
    while len(picked) < ctx.n_query:
        last = gradients[picked[-1]]
        distances = torch.cat([(gradients[block] - last).square().sum(1) for block in row_blocks(*gradients.shape)])
        nearest = torch.minimum(nearest, distances)
        nearest[picked] = 0
        cumulative = nearest.double().cumsum(0)
        picked.append(int(torch.searchsorted(cumulative, ctx.rng.random() * cumulative[-1], right=True)))
    return torch.tensor(picked)


def matrix_coreset(ctx: SelectionContext) -> Tensor:
    """k-center with all distances in memory, N x (N + M)."""
    distances = torch.cdist(ctx.features, torch.cat([ctx.features, ctx.labeled_features]))
    nearest, picked = distances[:, ctx.n_pool :].amin(1), []
    for _ in range(ctx.n_query):
        picked.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distances[:, picked[-1]])
        nearest[picked[-1]] = -1
    return torch.tensor(picked)


def matrix_neighbors(ctx: SelectionContext) -> Tensor:
    """The 10 nearest neighbors by sorting the whole matrix of cosines, N x N; returns the first ones' rows."""
    cosines = ctx.features @ ctx.features.T
    return cosines.fill_diagonal_(-1).argsort(dim=1, descending=True)[:, :10].flatten()


PLAIN = {"badge (dense)": dense_badge, "coreset (matrix)": matrix_coreset, "neighbors (matrix)": matrix_neighbors,
         "neighbors (blocks)": lambda ctx: neighbors(ctx.features, 10)[0].flatten()}


def cell(name: str, n: int, n_classes: int, n_query: int, folder: str | None, device: str = "cpu") -> dict:
    """Return seconds, seconds of all cores, peak bytes beyond the data and of the process, and the picks, of one selection.

    On a card, bytes are the card's, and the time is that with the pool there already.
    """
    torch.set_num_threads(THREADS)
    ctx = synthetic(n, n_classes, n_query, Path(folder) if folder else None).to(torch.device(device))
    before = _memory(ctx.device, "VmRSS")
    if ctx.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew here
    start, cpu = time.perf_counter(), time.process_time()
    try:
        rows = PLAIN[name](ctx) if name in PLAIN else select(sampler_by_name(name), ctx).rows
    except UserError as error:
        return {"error": str(error)}
    seconds, cpu, peak = time.perf_counter() - start, time.process_time() - cpu, _memory(ctx.device, "VmHWM")
    assert name in PLAIN or len(rows.unique()) == len(rows)
    return {"seconds": seconds, "cpu": cpu, "growth": peak - before, "peak": peak, "rows": rows[:2000].tolist()}


def k_means_table(sizes: list[tuple[int, int]]) -> None:
    """Print time and inertia of k-means by backend, seeding and number of steps, and the share of picks that agree."""
    torch.set_num_threads(THREADS)
    print("| N | K | N K D / 2^32 | k-means | s (of all cores) | of these the seeds | inertia | picks as the first row's |")
    print("|---" * 8 + "|")
    for n, k in sizes:
        features, first = synthetic(n, 100, 1).features[:n], None
        for name, form in clusterings(features, k).items():
            start, cpu = time.perf_counter(), time.process_time()
            centers, assignment, *seeds = form()
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            picks = {int(members[0]) for members in nearest_members(features, centers, assignment) if len(members)}
            first = first or picks
            inertia = float((features - centers[assignment]).square().sum())
            of_seeds = f"{seeds[0]:.1f} ({seeds[1]:.1f})" if seeds else ""
            print(f"| {n:,} | {k} | {n * k * WIDTH / 2**32:.2f} | {name} | {seconds:.1f} ({cpu:.1f}) | {of_seeds} | "
                  f"{inertia:.1f} | {100 * len(picks & first) / len(first):.1f} % |", flush=True)


def clusterings(features: Tensor, k: int) -> dict[str, Callable[[], tuple]]:
    """Return the k-means that are compared: each gives centers and assignment, those of this project the time of seeds too."""
    own = partial(_k_means, features, k)
    return {
        "greedy seeds, scikit-learn": own,
        "greedy seeds, faiss": partial(own, faiss=True),
        "greedy seeds, several a pass, faiss": partial(own, passes=True, faiss=True),
        f"the same, at most {clustering.LARGE_STEPS} steps": partial(own, passes=True, faiss=True, few_steps=True),
        "plain seeds, scikit-learn": partial(own, greedy=False),
        "scikit-learn's own": partial(_own_seeds, features, k),
        "faiss's defaults": partial(_faiss_defaults, features, k),
    }


def _k_means(features: Tensor, k: int, *, greedy: bool = True, passes: bool = False, faiss: bool = False,
             few_steps: bool = False) -> tuple[Tensor, Tensor, float, float]:
    """k-means of this project with its limits moved, and the seconds of its seeds, on the clock and of all cores."""
    weights, start, cpu = torch.ones(len(features)), time.perf_counter(), time.process_time()
    limits = {"SKLEARN_LIMIT": 0 if passes else 2**60, "LARGE": 0 if few_steps else 2**60}
    limits |= {} if greedy else {"n_candidates": lambda k: 1}
    with mock.patch.multiple(clustering, **limits):
        seeds = features[clustering.k_means_seeds(features, k, np.random.default_rng(0), weights)]
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        with mock.patch.object(clustering, "SKLEARN_LIMIT", 0 if faiss else 2**60):
            return *clustering.lloyd(features, seeds, weights), seconds, cpu


def _own_seeds(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    from sklearn.cluster import KMeans

    model = KMeans(k, n_init=1, random_state=0).fit(features.numpy())
    return torch.from_numpy(model.cluster_centers_), torch.from_numpy(model.labels_).long()


def _faiss_defaults(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    import faiss

    model = faiss.Kmeans(WIDTH, k, seed=0)
    model.train(features.numpy())
    return torch.from_numpy(model.centroids), torch.from_numpy(model.assign(features.numpy())[1])


def measured(name: str, size: tuple[int, int, int], folder: str | None = None, device: str = "cpu") -> dict:
    """Return what `cell` returns, from a process of its own; "needs" instead where a straightforward form does not fit."""
    if name in NEEDED_GIB and NEEDED_GIB[name](*size) > LIMIT_GIB:
        return {"error": f"needs {NEEDED_GIB[name](*size):.0f} GiB"}
    command = [sys.executable, __file__, "--cell", json.dumps([name, *size, folder, device])]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
    if done.returncode:
        return {"error": f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"}
    return json.loads(done.stdout.splitlines()[-1])


def table(names: list[str], sizes: list[tuple[int, int, int]], device: str) -> None:
    """Print a row a sampler and a column a size: seconds (of all cores), and memory beyond the data in MiB."""
    print("| sampler | " + " | ".join(f"{n:,} x {c}, B {b}" for n, c, b in sizes) + " |")
    print("|---" * (len(sizes) + 1) + "|")
    for name in names:
        cells = [measured(name, size, device=device) for size in sizes]
        print(f"| {name} | " + " | ".join(result.get("error") or seconds_and(result, result["growth"] / 2**20)
                                          for result in cells) + " |", flush=True)


def seconds_and(result: dict, mebibytes: float) -> str:
    return f"{result['seconds']:.2f} ({result['cpu']:.2f}), {mebibytes:,.0f}"


def million(folder: str, names: Sequence[str]) -> None:
    """Print seconds and peak memory of the whole process, mapped files included, on the largest pool."""
    synthetic(*MILLION, Path(folder))
    print("| sampler | s (of all cores) | peak GiB of the process |\n|---|---|---|")
    for name in names:
        result = measured(name, MILLION, folder)
        if "error" in result:
            print(f"| {name} | {result['error']} | |", flush=True)
            continue
        print(f"| {name} | {result['seconds']:.0f} ({result['cpu']:.0f}) | {result['peak'] / 2**30:.1f} |", flush=True)


def _memory(device: torch.device, key: str) -> int:
    """Return the bytes that a line of the process's status names; on a card, those of torch's tensors now or at their peak."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated() if key == "VmRSS" else torch.cuda.max_memory_allocated()
    return _status(key)


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key + ":"))
    return 1024 * int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--quick", "--growth", "--k-means", "--million"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--samplers", nargs="+", help="only these")
    parser.add_argument("--folder", help="where the files of --million are kept; a temporary folder without it")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the pool lies; not of the other tables")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(cell(*json.loads(arguments.cell))))
        return
    names = arguments.samplers or choosing_samplers() + (list(PLAIN) if arguments.device == "cpu" else [])
    if arguments.k_means:
        k_means_table([(2820, 188), (13500, 135), (13500, 300), (50000, 100), (50000, 500)])
    elif arguments.million:
        with tempfile.TemporaryDirectory() as folder:
            million(arguments.folder or folder, arguments.samplers or MILLION_SAMPLERS)
    else:
        table(names, QUICK if arguments.quick else GROWTH if arguments.growth else SIZES, arguments.device)


if __name__ == "__main__":
    main()
