"""Whose product computes the linear layers of a run: what its config asks for, its record was begun with, or is faster."""

from pathlib import Path

from yacs.config import CfgNode

from active.record.folder import linear_used
from active.record.results import RunResult
from dassl.utils.linear import TORCH, chosen, is_exact
from dassl.utils.paths import exists
from dassl.utils.run_folder import RESULTS

LEAST_WIDTH = 256  # of towers whose products are worth a choice


def linear_product(asked: str, width: int) -> str:
    """Return whose product `MODEL.LINEAR` is for towers of a width; small ones are not worth the time to choose it."""
    return TORCH if asked == "auto" and width < LEAST_WIDTH else chosen(asked)


def continued(cfg: CfgNode) -> CfgNode:
    """Return the config with the product that its record was begun with, if it has one and the config leaves it open."""
    results = Path(cfg.OUTPUT_DIR) / RESULTS
    if cfg.MODEL.LINEAR != "auto" or not exists(results):
        return cfg
    linear, own = linear_used(RunResult.read(results).environment), cfg.clone()
    own.defrost()
    own.MODEL.LINEAR = linear if linear == TORCH or is_exact() else "auto"  # of another machine; the record will name both
    own.freeze()
    return own
