"""From a `DATASET` node to the data set of a run, with a report of everything odd about it."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

from yacs.config import CfgNode

from dassl.data.dataset import DATASETS, SPLITS, UNLABELED, Dataset
from dassl.data.digests import ImageFiles
from dassl.data.known import class_key
from dassl.data.scan import inspect, scan
from dassl.data.subsets import few_shot, subsample_classes
from dassl.utils.errors import ConfigError, DataError, listed
from dassl.utils.paths import expanded

logger = logging.getLogger(__name__)


def load_dataset(cfg: CfgNode, cache: Path | None = None) -> Dataset:
    """Return the whole data set that `DATASET` names, from its files; no image is opened.

    `cache` is the folder for files that cannot be written to a data root.
    """
    component = DATASETS[cfg.NAME]
    arguments = component.arguments(cfg[component.key]) if component.parameters else {}
    if "cache" in component.given:
        arguments["cache"] = cache
    return component.build(expanded(cfg.ROOT), **arguments)


def build_dataset(
    cfg: CfgNode, *, seed: int, n_threads: int = 1, check_files: bool = True, cache: Path | None = None
) -> Dataset:
    """Return the data set of a `DATASET` node, with its few shots and its half of the classes, ready for a run.

    `seed` draws the few shots; for `cache`, see `load_dataset`. Raises DataError if an image file
    is missing, unless the caller checks the files itself.
    """
    if cfg.NUM_SHOTS == 0:
        raise ConfigError("DATASET.NUM_SHOTS is 0, but must be -1 (all images) or at least 1")
    dataset = load_dataset(cfg, cache)
    if cfg.NUM_SHOTS > 0:
        dataset = few_shot(dataset, cfg.NUM_SHOTS, seed)
    if cfg.SUBSAMPLE_CLASSES != "all":
        n_classes, dataset = len(dataset.classnames), subsample_classes(dataset, cfg.SUBSAMPLE_CLASSES)
        logger.info("%s: %d of %d classes, %s", dataset.name, len(dataset.classnames), n_classes, cfg.SUBSAMPLE_CLASSES)
    if check_files:
        ImageFiles(dataset)
    if cfg.CORRUPT == "skip":
        dataset = _without_corrupt(dataset, n_threads)
    _warn(dataset)
    return dataset


def check_labeled(dataset: Dataset) -> None:
    """Raise DataError unless every train image has a label and there are test images: what a simulated oracle needs."""
    unknown = sum(datum.label == UNLABELED for datum in dataset.train)
    if unknown:
        raise DataError(f"{dataset.name}: {unknown} of {len(dataset.train)} train images have no label, so that nobody can "
                        "answer a query")
    if not dataset.test:
        raise DataError(f"{dataset.name}: the test split is empty, so that nothing can be measured; give test images (of a "
                        "random split, their share of each class is too small), or label yourself with ACTIVE.ORACLE page")


def _without_corrupt(dataset: Dataset, n_threads: int) -> Dataset:
    """Return the data set without the images that a decoder refuses, which are counted and named in the log.

    Each of them is tried a second time, alone. Raises DataError if one cannot be read for another reason.
    """
    paths = list(dict.fromkeys(path for split in SPLITS for path in dataset.files(split)))
    suspects = [report.path for report in scan(paths, n_threads=n_threads) if report.error]
    reports = [report for report in map(inspect, suspects) if report.error]
    unread = [report.error for report in reports if not report.is_refused]
    if unread:
        raise DataError(listed(f"{dataset.name}: {len(unread)} image files cannot be read, which DATASET.CORRUPT skip does not "
                                "leave out, as it may pass", unread))
    if not reports:
        return dataset
    logger.warning("%s: %d of %d images cannot be decoded and are left out:\n  %s", dataset.name, len(reports), len(paths),
                   "\n  ".join(report.error for report in reports))
    refused = {report.path for report in reports}
    return replace(dataset, **{split: tuple(datum for datum in dataset.split(split) if dataset.place(datum.path) not in refused)
                               for split in SPLITS})


def classname_problems(classnames: tuple[str, ...]) -> list[str]:
    """Return a line for each class name that occurs twice or nearly so, is blank, or is not plain ASCII."""
    counts = Counter(classnames)
    lines = [f"{name!r} is the name of {count} classes" for name, count in counts.items() if count > 1]
    folded: dict[str, str] = {}
    for name in counts:
        key = class_key(name)
        if not key:
            lines.append(f"{name!r} is blank")
        elif folded.setdefault(key, name) != name:
            lines.append(f"{folded[key]!r} and {name!r} differ only in case, spaces or Unicode form")
        if name != name.strip():
            lines.append(f"{name!r} starts or ends with a space")
        if not name.isascii():
            lines.append(f"{name!r} is not ASCII; CLIP was trained on English text")
    return lines


def _warn(dataset: Dataset) -> None:
    for problem in classname_problems(dataset.classnames):
        logger.warning("%s: class name %s", dataset.name, problem)
    for split in SPLITS:
        counts = Counter(datum.label for datum in dataset.split(split))
        empty = [name for label, name in enumerate(dataset.classnames) if not counts[label]]
        if empty and dataset.split(split) and not counts[UNLABELED]:
            logger.warning("%s: %d classes have no %s image: %s", dataset.name, len(empty), split, ", ".join(empty[:10]))
    leaked = {datum.path for datum in dataset.test} & {datum.path for datum in dataset.train}
    if leaked:
        logger.warning("%s: %d images stand in both train and test, first %r", dataset.name, len(leaked), min(leaked))
    if not dataset.val:
        logger.info("%s has no validation split", dataset.name)
