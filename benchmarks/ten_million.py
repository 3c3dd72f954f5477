"""Samplers on a bank of 10,000,000 x 64 float16 features that stays on the disk: seconds, and memory beside mapped files.

    OMP_NUM_THREADS=1 python -m benchmarks.ten_million output/ten_million

The bank is made of synthetic rows, by the code that makes those of runs: 1,000 directions, each row one of them plus noise
that moves it by 0.8 of its length. Logits, of 120 classes, are float32 and mapped, as a run keeps them. 100 images are labeled
and 100 asked. Each step runs in a process of its own. Memory is sampled every 50 ms: the peaks of what lies in no file
(`RssAnon` and `RssShmem` of proc(5)), and of all resident pages, mapped files included, which the system takes back where it
needs them.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from active.context import SelectionContext
from active.kernels.scores import row_blocks
from active.selection import select
from active.testing import sampler_by_name
from dassl.data.digests import Contents
from dassl.data.feature_bank import load_bank
from dassl.utils.large import large_files_in, room
from dassl.utils.seeding import rng_for

N, WIDTH, N_CLASSES, N_LABELED, N_QUERY, DIRECTIONS, NOISE, SCALE = 10_000_000, 64, 120, 100, 100, 1000, 0.1, 20.0
SAMPLERS = ("random", "margin", "entropy", "coreset", "badge", "cb", "uherding")
STATUS, EVERY = Path("/proc/self/status"), 0.05


def directions() -> Tensor:
    """Return unit rows [DIRECTIONS, WIDTH] that images lie around; those before N_CLASSES are the classes' texts."""
    return F.normalize(torch.randn(DIRECTIONS, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)


def extract(rows: Sequence[int]) -> Iterator[Tensor]:
    """Yield the features of rows in parts, as a tower would."""
    of_all = directions()
    for block in row_blocks(len(rows), WIDTH):
        generator = torch.Generator().manual_seed(1 + rows[block][0])
        own = of_all[torch.randint(DIRECTIONS, (len(rows[block]),), generator=generator)]
        yield F.normalize(own + NOISE * torch.randn(own.shape, generator=generator), dim=1)


def bank(folder: Path, n: int) -> Tensor:
    """Return the features [n, WIDTH] of a bank, made if it is not there."""
    digests = torch.zeros(n, 32, dtype=torch.uint8)
    digests[:, :8] = torch.arange(n).view(torch.uint8).view(n, 8)
    contents = Contents("Synthetic", "train", (), torch.empty(0), digests, str(n))
    return load_bank(folder, {"dataset": "Synthetic", "split": "train", "files": str(n), "features": "float16"}, contents,
                     extract).features


def context(features: Tensor) -> SelectionContext:
    """Return a pool of all rows but the last, which are labeled."""
    texts, n = directions()[:N_CLASSES], len(features) - N_LABELED
    logits = room(len(features), N_CLASSES)
    for block in row_blocks(*features.shape):
        logits[block] = SCALE * features[block].float() @ texts.T
    return SelectionContext(
        ids=torch.arange(n), features=features[:n], logits=logits[:n], zero_shot_logits=logits[:n],
        labeled_ids=torch.arange(n, len(features)), labeled_features=features[n:].float(), labeled_logits=logits[n:],
        labels=logits[n:].argmax(1), text_features=texts, n_query=N_QUERY, round=1, n_total=len(features),
        rng=rng_for(0, "benchmark"))


class Memory(threading.Thread):
    """The peaks of this process's memory, in GiB, while it is entered: beside files, and all that is resident."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.beside_files = self.resident = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> "Memory":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(EVERY):
            own = {line.split(":")[0]: int(line.split()[1]) / 2**20 for line in STATUS.read_text().splitlines()
                   if line.startswith(("Rss", "VmRSS"))}
            self.beside_files = max(self.beside_files, own["RssAnon"] + own["RssShmem"])
            self.resident = max(self.resident, own["VmRSS"])


def measured(folder: Path, step: str, n: int) -> dict:
    """Return seconds and memory of a step: `bank`, or a sampler."""
    with large_files_in(folder), Memory() as memory:
        if step != "bank":
            ctx = context(bank(folder, n))
        start, cpu = time.perf_counter(), time.process_time()
        found = bank(folder, n) if step == "bank" else select(sampler_by_name(step), ctx).rows
        took = time.perf_counter() - start, time.process_time() - cpu
    assert len(found) == (n if step == "bank" else N_QUERY)
    return {"step": step, "seconds": round(took[0], 1), "cpu_seconds": round(took[1], 1),
            "beside_files_gib": round(memory.beside_files, 2), "resident_gib": round(memory.resident, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", nargs="+", default=["bank", *SAMPLERS])
    parser.add_argument("--n", type=int, default=N)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for step in arguments.steps:
        if arguments.one:
            print(json.dumps(measured(arguments.folder, step, arguments.n)), flush=True)
            continue
        words = ["--one", "--steps", step, "--n", str(arguments.n)]
        subprocess.run([sys.executable, "-m", "benchmarks.ten_million", str(arguments.folder), *words], check=True)


if __name__ == "__main__":
    main()
