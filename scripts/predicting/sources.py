"""Which images are predicted: those of a split of the run's own data set, or any others."""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dassl.config.setup import cache_path
from dassl.data.build import build_dataset
from dassl.data.dataset import UNLABELED, Dataset
from dassl.data.folders import IMAGE, Tree
from dassl.data.formats import image_suffixes
from dassl.data.images import read_bytes
from dassl.data.places import Place, holder
from dassl.utils.errors import DataError, UserError
from dassl.utils.held import Held
from dassl.utils.paths import exists, expanded, is_folder, resolved
from dassl.utils.text import printable
from scripts.predicting.rows import Row, answers
from trainers.core.build import frozen_features, kept_features
from trainers.core.classifier import Classifier
from trainers.core.job import Use, image_files

FEATURES_AT_ONCE = 65536  # as in an evaluation: the last digits of a matrix product depend on the shapes


@dataclass(frozen=True)
class Source:
    """The number of images, the folders that hold them, and the row of each."""

    n_images: int
    folders: tuple[Path, ...]
    rows: Iterable[Row]


def of_split(use: Use, classifier: Classifier, split: str) -> Source:
    """Return all images of a split of the run's data set, including copies that people were not asked about.

    What the learner reads from the frozen tower comes from the cache; without it, the images are read.
    """
    cfg = use.cfg
    dataset = build_dataset(cfg.DATASET, seed=cfg.SEED, n_threads=cfg.DATALOADER.NUM_WORKERS, check_files=False,
                            cache=cache_path(cfg))
    if not (items := dataset.split(split)):
        raise UserError(f"{dataset.name} has no {split} images")
    if dataset.classnames != classifier.classnames:
        raise UserError(f"{dataset.name} in {dataset.root} has other classes now than the run was trained on; name the data "
                        "root of the run by --root, or the folder of the images to be predicted")
    said = answers(use.record, {datum.path: datum.label for datum in dataset.train}) if split == "train" else {}
    return Source(len(items), (dataset.root,), _rows_of_split(use, classifier, dataset, split, said))


def of_places(use: Use, classifier: Classifier, places: Sequence[str]) -> Source:
    """Return the images in folders, at any depth, and of single files; raises UserError for what is not there.

    People's answers about images of the run's data set count here too.
    """
    files: list[str] = []
    for place in map(expanded, places):
        files += _files(place)
    root, files = expanded(use.cfg.DATASET.ROOT), list(dict.fromkeys(files))
    said = {str(resolved(root / name)): code for name, code in answers(use.record).items()}
    rows = _rows_of_files(classifier, zip(files, map(Path, files), strict=True),
                          lambda file: said.get(str(resolved(file)), UNLABELED) if said else UNLABELED)
    return Source(len(files), tuple(place for place in map(expanded, places) if is_folder(place)), rows)


def _files(place: Path) -> list[str]:
    if not is_folder(place):
        if not exists(place):
            raise UserError(f"there is no {printable(place)} to be predicted")
        return [str(place)]
    if not (found := Tree(place).paths(IMAGE)):
        ends = ", ".join(sorted(image_suffixes()))
        raise UserError(f"{printable(place)} holds no images; they are known by their ends ({ends})")
    return [os.path.join(place, path) for path in found]


def _rows_of_split(use: Use, classifier: Classifier, dataset: Dataset, split: str, said: Mapping[str, int]) -> Iterator[Row]:
    """Yield the rows of images whose features are in the cache, then those of the others."""
    paths, features = _frozen(use, classifier, dataset, split) if classifier.model.learner.reads != "tokens" else ([], None)
    if paths:
        found = classifier.of_inputs(part.float() for part in features.split(FEATURES_AT_ONCE))
        yield from (Row(path, dataset.place(path), probs, said.get(path, UNLABELED))
                    for path, probs in zip(paths, found, strict=True))
    done = set(paths)
    others = ((datum.path, dataset.place(datum.path)) for datum in dataset.split(split) if datum.path not in done)
    for row in _rows_of_files(classifier, others):
        yield replace(row, code=said.get(row.name, UNLABELED))


def _frozen(use: Use, classifier: Classifier, dataset: Dataset, split: str) -> tuple[list[str], Tensor | None]:
    """Return paths of a split and what the learner reads from the frozen tower for them, as in a run.

    If images are missing or damaged, these are only images in the cache: missing ones, and those that are unchanged.
    """
    clip, reads = classifier.model.clip, classifier.model.learner.reads
    try:
        files = image_files(use.cfg, Held())
        dataset = files.dataset
        return [datum.path for datum in dataset.split(split)], frozen_features(use.cfg, clip, files, split, reads)
    except DataError:
        kept = kept_features(use.cfg, clip, dataset, split, reads)
    if kept is None:
        return [], None
    fits = torch.tensor([_is_as_it_was(file, bytes(digest).hex())
                         for file, digest in zip(dataset.files(split), kept["digests"].numpy(), strict=True)])
    return [datum.path for datum, own in zip(dataset.split(split), fits, strict=True) if own], kept["features"][fits]


def _is_as_it_was(file: Place, digest: str) -> bool:
    """Tell whether a file still has this SHA-256; a missing file is assumed to."""
    try:
        return not exists(holder(file)) or hashlib.sha256(read_bytes(file)).hexdigest() == digest
    except UserError:
        return False


def _rows_of_files(
    classifier: Classifier, named: Iterable[tuple[str, Place]], code: Callable[[Place], int] = lambda _: UNLABELED
) -> Iterator[Row]:
    """Yield the rows of images that are read now, by what each is called and where it lies."""
    named, again = itertools.tee(named)
    found = itertools.chain.from_iterable(classifier.stream(file for _, file in named))
    yield from (Row(name, file, own, code(file)) for (name, file), own in zip(again, found, strict=True))
