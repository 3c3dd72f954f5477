"""Read a whole data set once and say what is wrong with it, before anything is trained.

    python -m datasets.check --config-file configs/datasets/dtd.yaml --root DATA
    python -m datasets.check --root my_photos --json report.json DATASET.NAME ImageFolder

Errors (exit code 1): files that are missing, empty, or cannot be read or decoded, and the same image in two splits.
Warnings (exit code 0): the same image twice in a split, or under two labels; classes without an image in a split; images
that are not RGB or grey, that EXIF rotates, that store white as zero or leave upper bits unused, or that look as if a part
were missing; class names that CLIP may not understand. Exit code 2: a wrong command line.
"""

import argparse
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dassl.config.cli import Parser, command, count
from dassl.config.setup import cache_path, check_config, setup_config
from dassl.data.build import classname_problems, load_dataset
from dassl.data.dataset import DATASETS, SPLITS, UNLABELED, Dataset, check_dataset_name
from dassl.data.places import holder
from dassl.data.scan import REMARKS, FileReport, scan
from dassl.utils.errors import UserError
from dassl.utils.files import write_json
from dassl.utils.text import printable

ERRORS = {"missing": "missing files", "empty": "empty files", "corrupt": "files that cannot be decoded",
          "unread": "files that could not be read or decoded this time", "leaks": "images that are in two splits"}
WARNINGS = {"duplicates": "images that are twice in a split", "conflicts": "images with two labels",
            "empty_classes": "classes without an image", "modes": "images that are neither RGB nor grey",
            "inverted": "images that store white as zero", "narrow": "images that are dark, as their upper bits are unused",
            "partial": "images that may have been written in part",
            "rotated": "images that EXIF rotates", "class_names": "class names that look wrong"}
ORDINARY_MODES = ("RGB", "L")
MAX_TOKENS = 77  # of CLIP's text tower, with start and end
N_SHOWN = 10


def check(dataset: Dataset, *, n_threads: int) -> dict[str, Any]:
    """Return the report of a data set: lists by the keys of ERRORS and WARNINGS, and counts. Reads every file once."""
    start = time.perf_counter()
    paths = sorted({datum.path for split in SPLITS for datum in dataset.split(split)})
    files = dict(zip(paths, scan([dataset.place(path) for path in paths], n_threads=n_threads,
                                 description=f"reading {dataset.name}"), strict=True))
    seconds = time.perf_counter() - start
    readable = {path: file for path, file in files.items() if not file.error}
    return {
        "dataset": dataset.name, "n_classes": len(dataset.classnames), "n_files": len(files),
        **{f"n_{split}": len(dataset.split(split)) for split in SPLITS},
        "n_unlabeled": sum(datum.label == UNLABELED for datum in dataset.train),
        "seconds": round(seconds, 2), "files_per_minute": round(60 * len(files) / max(seconds, 1e-9)),
        **_broken(files), **_copies(dataset, readable),
        "empty_classes": _empty_classes(dataset),
        "mode_counts": dict(Counter(file.mode for file in readable.values())),
        "modes": [f"{path}: {file.mode}" for path, file in readable.items() if file.mode not in ORDINARY_MODES],
        **{kind: [f"{path}: {file.remarks[kind]}" for path, file in readable.items() if kind in file.remarks]
           for kind in REMARKS},
        "rotated": [path for path, file in readable.items() if file.is_rotated],
        "class_names": [*classname_problems(dataset.classnames), *_too_long(dataset.classnames)],
    }


def _broken(files: dict[str, FileReport]) -> dict[str, list[str]]:
    """Return the files that cannot be used, each in one of four lists."""
    faulty = {path: file for path, file in files.items() if file.error}
    missing = [path for path, file in faulty.items() if not os.path.lexists(holder(file.path))]
    empty = [path for path, file in faulty.items() if file.sha256 and not file.n_bytes]
    rest = [file for path, file in faulty.items() if path not in {*missing, *empty}]
    return {"missing": missing, "empty": empty, "corrupt": [file.error for file in rest if file.is_refused],
            "unread": [file.error for file in rest if not file.is_refused]}


def _copies(dataset: Dataset, files: dict[str, FileReport]) -> dict[str, list[str]]:
    """Return files with equal bytes: across splits, within one, and under two labels."""
    same: dict[str, list[tuple[str, str, int]]] = {}
    for split in SPLITS:
        for datum in dataset.split(split):
            if datum.path in files:
                same.setdefault(files[datum.path].sha256, []).append((split, datum.path, datum.label))
    found: dict[str, list[str]] = {"leaks": [], "duplicates": [], "conflicts": []}
    for copies in same.values():
        for (split, path, label), (other_split, other_path, other_label) in itertools.pairwise(copies):
            kind = "duplicates" if split == other_split else "leaks"
            found[kind].append(f"{split} {path} = {other_split} {other_path}")
            if label != other_label and UNLABELED not in (label, other_label):
                names = dataset.classnames[label], dataset.classnames[other_label]
                found["conflicts"].append(f"{path} ({names[0]}) = {other_path} ({names[1]})")
    return found


def _empty_classes(dataset: Dataset) -> list[str]:
    found = []
    for split in SPLITS:
        labels = {datum.label for datum in dataset.split(split)}
        if labels and UNLABELED not in labels:  # else it is not known yet
            found += [f"{name} in {split}" for label, name in enumerate(dataset.classnames) if label not in labels]
    return found


def _too_long(classnames: Sequence[str]) -> list[str]:
    """Return a line for each name that does not fit into CLIP's text tower. A token has at least one byte."""
    suspects = [name for name in classnames if len(name.encode()) > MAX_TOKENS - 2]
    if not suspects:
        return []
    from open_clip.tokenizer import SimpleTokenizer  # seconds to import

    lengths = {name: len(SimpleTokenizer().encode(name)) + 2 for name in suspects}
    return [f"{name!r} has {length} tokens; CLIP reads {MAX_TOKENS}" for name, length in lengths.items() if length > MAX_TOKENS]


def summary(report: dict[str, Any]) -> str:
    """Return the report as text: a line per kind of finding, with the first few of each."""
    lines = [f"{report['dataset']}: {report['n_train']} train, {report['n_val']} val, {report['n_test']} test images of "
             f"{report['n_classes']} classes; {report['n_files']} files read in {report['seconds']} s "
             f"({report['files_per_minute']:,} a minute)"]
    for level, kinds in (("error", ERRORS), ("warning", WARNINGS)):
        for key, meaning in kinds.items():
            if found := report[key]:
                lines.append(f"{level}: {len(found)} {meaning}")
                lines += [f"    {printable(line)}" for line in found[:N_SHOWN]] + ["    ..."] * (len(found) > N_SHOWN)
    if not any(report[key] for key in (*ERRORS, *WARNINGS)):
        lines.append("nothing is wrong")
    return "\n".join(lines)


def parser() -> Parser:
    """Return the command line's parser."""
    flags = Parser(prog="datasets.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--config-file", nargs="+", action="extend", default=[], metavar="YAML", help="merged left to right")
    flags.add_argument("--root", metavar="DIR", help="folder that holds the data sets (DATASET.ROOT)")
    flags.add_argument("--json", metavar="FILE", help="write the whole report there")
    flags.add_argument("--threads", type=count, default=os.cpu_count() or 1, metavar="N", help="default: one a core")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        arguments, pairs = parser().parse(sys.argv[1:] if argv is None else argv)
        root = [("DATASET.ROOT", arguments.root)] if arguments.root else []
        cfg = setup_config(arguments.config_file, [*root, *pairs], (DATASETS,), nodes=("DATASET",))
        check_config(cfg, (DATASETS,))
        check_dataset_name(cfg.DATASET.NAME)
        report = check(load_dataset(cfg.DATASET, cache_path(cfg)), n_threads=arguments.threads)
        if arguments.json:
            write_json(Path(arguments.json), report)
    except UserError as error:
        sys.stderr.write(f"datasets.check: {error}\n")
        return error.exit_code
    sys.stdout.write(summary(report) + "\n")
    return 1 if any(report[key] for key in ERRORS) else 0


if __name__ == "__main__":
    command("datasets.check", main)
