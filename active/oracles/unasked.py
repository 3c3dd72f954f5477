"""Defaults of `DATASET.IMAGEFOLDER` where people label: copies are not asked, and none of their labels is held out."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from yacs.config import CfgNode

from active.oracles.registry import asks_people
from dassl.config.setup import cache_path
from dassl.data.dataset import SPLITS, UNLABELED
from dassl.data.splits import VAL, drawn_file
from dassl.utils.paths import exists, expanded
from dassl.utils.text import printable

if TYPE_CHECKING:
    from dassl.data.digests import ImageFiles

AUTO = -1.0  # VAL

logger = logging.getLogger(__name__)


def settle_for_people(cfg: CfgNode, recorded: Mapping[str, Any] | None) -> None:
    """Settle `VAL` and `COPIES` of a folder of images where they are left open.

    Where people label, nothing is held out as val, and copies are not asked; otherwise 0.2 is held out, as before. A run
    that has begun (`recorded`) keeps its settings, and a split that has been drawn keeps its val.
    """
    if "IMAGEFOLDER" not in cfg.DATASET:
        return
    node, by_people = cfg.DATASET.IMAGEFOLDER, asks_people(cfg.ACTIVE)
    old = recorded["DATASET"].get("IMAGEFOLDER", {}) if recorded else {}
    if node.COPIES == "auto":
        node.COPIES = old.get("COPIES", "ask") if old else "skip" if by_people else "ask"
    if node.VAL == AUTO:
        stored = drawn_file(expanded(cfg.DATASET.ROOT), (VAL, node.TEST), node.SPLIT_SEED, cache_path(cfg))
        node.VAL = old.get("VAL", 0.0 if by_people and not exists(stored) else VAL)


def asked_once(files: "ImageFiles", cfg: CfgNode) -> "ImageFiles":
    """Return the files of a run without copies that people would be asked a second time, if the config leaves them out.

    Left out are train images without a label whose bytes equal those of a labeled image in any split, or of an earlier image.
    """
    if "IMAGEFOLDER" not in cfg.DATASET or not asks_people(cfg.ACTIVE):
        return files
    dataset, node = files.dataset, cfg.DATASET.IMAGEFOLDER
    if dataset.test and not node.VAL:
        logger.info("%s: of labels that people made none is held out as val, since nothing reads it", dataset.name)
    if node.get("COPIES") != "skip":  # older records lack the key
        return files
    images = [(datum.label, datum.path, row, split) for split in SPLITS for row, datum in enumerate(dataset.split(split))]
    first: dict[bytes, str] = {}
    copies = {}
    for label, path, row, split in sorted(images, key=lambda image: image[0] == UNLABELED):
        twin = first.setdefault(bytes(files.contents(split).digests[row].numpy()), path)
        if label == UNLABELED and twin != path:
            copies[row] = twin
    if not copies:
        return files
    row, twin = next(iter(copies.items()))
    logger.info("%s: %d images are copies of others, byte for byte, and are not asked: %s = %s%s "
                "(DATASET.IMAGEFOLDER.COPIES ask asks about them too)", dataset.name, len(copies),
                printable(dataset.train[row].path), printable(twin), ", ..." if len(copies) > 1 else "")
    return files.keeping([row for row in range(len(dataset.train)) if row not in copies])
