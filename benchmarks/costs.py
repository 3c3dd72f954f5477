"""What pools of 1, 10 and 100 million images cost, computed from measured rates: writes `docs/scale.md`.

    python -m benchmarks.costs > docs/scale.md
    OMP_NUM_THREADS=1 python -m benchmarks.costs --measure PHOTOS       measures the rates of extraction, to be copied to RATES

Each figure in `RATES` was measured and says where; those of cards are estimates, as none was at hand, and the page says so.
"""

import argparse
import sys
import time
from pathlib import Path

from active.kernels.k_means import LARGE, LARGE_STEPS, MAX_STEPS
from scripts.documenting.tables import table

SIZES = (1_000_000, 10_000_000, 100_000_000)
WIDTH = 512  # numbers an image
N_CLASSES, N_LABELED, N_QUERY = 100, 100, 100  # of the table of selection
RATES = {
    "ViT-B/32": 9.4,  # images a second of a core, files to features, `--measure`: 96 photographs, batches of 16
    "ViT-B/16": 2.3,
    "reading": 640.0,  # photographs of 6 kB a second of a core, to 224 pixels, benchmarks/data.md
    "reading large": 233.0,  # of 640 x 480 pixels, benchmarks/data.md
    "bank": 85e6,  # bytes of features a CPU second, synthetic extraction, shards and joining, benchmarks/samplers.md
    "list": 698.0,  # bytes of memory an image takes in the lists of a run, `--measure`
}
# CPU seconds and GiB beside files at 10,000,000 x 64, benchmarks/samplers.md; START is what a process takes without a pool
SELECTION = {"random": (18.0, 1.01), "margin": (25.5, 1.74), "entropy": (21.3, 1.70), "coreset": (53.1, 1.70),
             "badge": (124.5, 1.39), "cb": (581.5, 1.83), "uherding": (31.2, 1.72)}
MEASURED_AT = {"rows": 10_000_000, "width": 64, "classes": 120, "labeled": 100, "asked": 100}
START = 0.45  # GiB
PEAK, SHARE, CORES = 312e12, 0.4, 16  # of a card: fp16 operations a second, assumed share of them, cores that read for it
TOWERS = {"ViT-B/32": 32, "ViT-B/16": 16}  # pixels of a patch; 12 layers, 768 wide, 224 pixels
MACHINES = {"one CPU, 2 cores": 0, "1 card": 1, "8 cards": 8, "64 cards": 64}
GIB = 2**30


def operations(patch: int, side: int = 224, width: int = 768, n_layers: int = 12) -> float:
    """Return the floating-point operations of a vision transformer on one image."""
    n_tokens = (side // patch) ** 2 + 1
    layer = 24 * width**2 * n_tokens + 4 * width * n_tokens**2
    return n_layers * layer + 2 * 3 * patch**2 * width * (n_tokens - 1)


def images_per_second(tower: str, n_cards: int, *, reading: str = "reading") -> float:
    """Return the rate of extraction: measured on 2 cores without a card, else the estimate, tower or reading."""
    if not n_cards:
        return 2 * RATES[tower]
    return n_cards * min(PEAK * SHARE / operations(TOWERS[tower]), CORES * RATES[reading])


def duration(seconds: float) -> str:
    """Return seconds as the largest fitting unit, with two significant digits."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{_two_digits(seconds / length)} {unit}"
    return f"{_two_digits(seconds)} s"


def size(n_bytes: float) -> str:
    """Return bytes in GB or TB, with two significant digits."""
    return f"{_two_digits(n_bytes / 1e12)} TB" if n_bytes >= 1e12 else f"{_two_digits(n_bytes / 1e9)} GB"


def _two_digits(number: float) -> str:
    return f"{float(f'{number:.2g}'):,g}"


def disk() -> str:
    rows = []
    for n in SIZES:
        banks = {n_bytes: n * (n_bytes * WIDTH + 32) for n_bytes in (2, 4)}
        temporary = n * (2 * WIDTH + 4 * 4 * N_CLASSES)
        rows.append([f"{n:,}", size(banks[2]), size(banks[4]), size(2 * banks[2]), size(temporary), size(n * 8 * WIDTH)])
    return table(["images", "float16", "float32", "shards and bank of float16, while they are joined", "temporary in a run",
                  "more with `cb`"], rows)


def memory() -> str:
    most = max(gib for _, gib in SELECTION.values()) - START
    rows = [[f"{n:,}", size(RATES["list"] * n), size(START * GIB + most * GIB * n / MEASURED_AT["rows"])] for n in SIZES]
    return table(["images", "lists of images, stamps and hashes", "selection beside files, at most"], rows)


def extraction() -> str:
    header = ["images", "tower", *(name + ("" if not n else ", ESTIMATE") for name, n in MACHINES.items())]
    return table(header, [[f"{n:,}", tower, *(duration(n / images_per_second(tower, n_cards)) for n_cards in MACHINES.values())]
                          for n in SIZES for tower in TOWERS])


def growth(sampler: str, n: int) -> float:
    """Return how many times the work of a sampler is what was measured: by numbers that it reads, as its formula says."""
    at, ratio = MEASURED_AT, n / MEASURED_AT["rows"]
    passes = N_QUERY / at["asked"]
    clusters = (N_CLASSES + N_LABELED) / (at["classes"] + at["labeled"])
    steps = 1 if n * (N_CLASSES + N_LABELED) * 2 * WIDTH > LARGE else MAX_STEPS / LARGE_STEPS
    return {"random": ratio, "margin": ratio * N_CLASSES / at["classes"], "entropy": ratio * N_CLASSES / at["classes"],
            "coreset": ratio * WIDTH / at["width"] * passes,
            "badge": ratio * (WIDTH + N_CLASSES) / (at["width"] + at["classes"]) * passes,
            "cb": ratio * clusters * steps * WIDTH / at["width"], "uherding": WIDTH / at["width"] * passes}[sampler]


def selection() -> str:
    rows = [[f"`{name}`", *(duration(seconds * growth(name, n)) for n in SIZES)] for name, (seconds, _) in SELECTION.items()]
    return table(["sampler", *(f"{n:,}" for n in SIZES)], rows)


PAGE = """# Large pools

<!-- Written by `python -m benchmarks.costs > docs/scale.md` from the rates in benchmarks/costs.py; a test holds it. -->

What a pool of a million images or more costs in disk, memory and hours. Everything is computed from rates that were measured
on two cores, **except the columns marked ESTIMATE: no card was at hand**.

## Extract, move, run

<!-- not run: it takes a data set of your own -->
```bash
python scripts/extract.py --config-file configs/trainers/CoOp/vit_b32.yaml --root DATA MODEL.FEATURES float16
```

- `MODEL.FEATURES float16` keeps features in half the space, rounded to 11 bits. Like the backbone, it is part of a run's
  identity: give it to both `extract.py` and `train.py`.
- Shards of 16,384 images are extracted by processes, Ray actors or Slurm jobs, see [On a
  cluster](tutorials/cluster.md#features-first). At the end they are joined into one file, with a few rows in memory at a
  time, because samplers index a single tensor.
- `--keep-shards` leaves the shards with an `index.json` (for each: file, first row, rows, type, width, checksum), so that you
  can move them to another machine's `CACHE_DIR`. The first run there joins them. A shard that is missing, damaged or not the
  one listed is named and extracted again.
- A run maps the file: memory holds what is in use, and the system takes it back when it needs space. Predictions and copies
  of 256 MiB and more are mapped files without a name in `OUTPUT_DIR`, which vanish with the process. Samplers read float16
  features in blocks. `cb` clusters a float32 copy that is twice as wide as the features; it is such a file too.

## Disk

For {width} numbers an image and {classes} classes. A bank also holds a hash of 32 bytes for each image. A run on float16
features has temporary files: the features of its pool, and the float32 logits, current and zero-shot, of all images and of
the pool.

{disk}

## Memory

The lists that a run holds take {list:,.0f} bytes an image, measured at a million images with paths of 36 characters. **At
100 million images these lists, not the features, outgrow a machine.** The memory that a selection takes beside mapped files
is given as the largest measured at {rows:,} rows (`benchmarks/samplers.md`), in proportion:

{memory}

No whole run of these sizes was made. Samplers were run on a bank of ten million rows, and whole runs on small banks with every
tensor in a mapped file. Samplers other than these seven may hold vectors of all classes (`pcoreset`) or join all rows in memory
(`probcover`).

## Hours of extraction

From files to features, fp32 on the CPU: {b32:.1f} images a second of a core with ViT-B/32, {b16:.1f} with ViT-B/16, measured.
Figures for cards are an ESTIMATE for an NVIDIA A100. Two rates are computed, and the lower one counts:

- the tower's: {share:.0%} (an assumption) of {peak:.0f} TFLOP/s, the data sheet's peak in fp16 (`MODEL.PREC fp16`), with
  {ops32:.1f} (ViT-B/32) and {ops16:.1f} GFLOP (ViT-B/16) an image;
- what {cores} cores a card can read: {reading:,.0f} small photographs a second of a core, measured ({large:,.0f} of 640 x 480
  pixels, so {of_large:,.0f} a second with 16 cores).

Workers share nothing, so n cards are taken to be n times as fast.

{extraction}

One process joins the shards, at {bank:,.0f} MB of features a CPU second. This includes the random numbers that stood in for a
tower. In float16 it takes {joined}, from the smallest pool to the largest. The disk must keep up with that.

## Selection

CPU seconds of one core were measured at {n_rows:,} x {at_width} float16, {at_classes} classes, {labeled} labeled and {asked}
asked (`benchmarks/samplers.md`). The table scales them, in proportion to the numbers that a sampler reads, to {width} x
{classes} and {asked} asked. One machine selects, whatever extracted the features. On a card
with room for the pool, `ACTIVE.DEVICE auto` picks there, which was not measured. `uherding` takes 200,000 random
candidates whatever the pool's size. Where rows x clusters x width is above 2^38, the k-means of `cb` stops
after {steps} steps, as was measured. Below that it stops after {most} at most, and the table assumes all
of them.

{selection}
"""


def page() -> str:
    """Return the content of `docs/scale.md`."""
    return PAGE.format(
        width=WIDTH, classes=N_CLASSES, disk=disk(), memory=memory(), list=RATES["list"], rows=MEASURED_AT["rows"],
        b32=RATES["ViT-B/32"], b16=RATES["ViT-B/16"], share=SHARE, peak=PEAK / 1e12, cores=CORES, reading=RATES["reading"],
        large=RATES["reading large"], of_large=CORES * RATES["reading large"], ops32=operations(32) / 1e9,
        ops16=operations(16) / 1e9, extraction=extraction(),
        bank=RATES["bank"] / 1e6, joined=", ".join(duration(2 * WIDTH * n / RATES["bank"]) for n in SIZES),
        n_rows=MEASURED_AT["rows"], at_width=MEASURED_AT["width"], at_classes=MEASURED_AT["classes"],
        labeled=MEASURED_AT["labeled"], asked=MEASURED_AT["asked"], steps=LARGE_STEPS, most=MAX_STEPS, selection=selection())


def lists(n: int = 1_000_000) -> float:
    """Return the bytes of memory that an image takes in what a run holds of each: name, place, stamp, hash, state."""
    import torch

    from active.pool import LabelPool
    from dassl.data.dataset import Dataset, Datum

    before = _memory()
    dataset = Dataset("Synthetic", Path("/data"), tuple(
        Datum(f"images/class_{row % 1000:04d}/image_{row:08d}.jpg", row % 1000) for row in range(n)), (), (), ("a",) * 1000)
    held = (dataset.train_rows, dataset.files("train"), LabelPool(n), torch.ones(n, 32, dtype=torch.uint8),
            torch.ones(n, 4, dtype=torch.int64))
    return (_memory() - before) / n if held else 0


def _memory() -> int:
    """Return the bytes of this process's memory that are no file's."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def measure(photos: Path, n_images: int = 96) -> None:
    """Print images a CPU second, from files to features, of towers with random weights; in batches of 16 and one thread."""
    print(f"lists: {lists():.0f} bytes an image")
    from benchmarks.extraction import built, here

    paths = sorted(path for path in photos.rglob("*") if path.suffix == ".jpg")[:n_images]
    for tower in TOWERS:
        clip = built(tower.replace("/", "-"))
        here(clip, paths[:16])
        start = time.process_time()
        here(clip, paths)
        print(f"{tower}: {len(paths) / (time.process_time() - start):.1f} images a CPU second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=Path, metavar="PHOTOS")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
    else:
        sys.stdout.write(page())


if __name__ == "__main__":
    main()
