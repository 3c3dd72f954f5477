"""CEC's calibrated entropy: the prior that divides each class's probabilities, and the entropy of a row's neighbors.

Source: Safaei and Patel, "Active Learning for Vision-Language Models", WACV 2025 (arXiv 2410.22187), Eqs. 4 and 6.
"""

import logging
import math

from torch import Tensor

from active.kernels.neighbor_lists import NeighborLists
from active.kernels.scores import row_blocks, top_columns_of

logger = logging.getLogger(__name__)


def log_prior(logits: Tensor, n_support: int, support: str, floor: float = 0.0) -> Tensor:
    """Return the logarithm of Eq. 4's class prior [C]."""
    blocks = (logits[block].float().log_softmax(1).T for block in row_blocks(*logits.shape))
    rows, largest = top_columns_of(blocks, n_support)  # [C, n_support]
    supports = largest.T if support == "own" else logits[rows.unique()].float().log_softmax(1)
    prior = supports.logsumexp(0) - math.log(len(supports))
    if floor > 0 and bool((prior < math.log(floor)).any()):
        logger.info("cec: the prior of %d classes is raised to %g", int((prior < math.log(floor)).sum()), floor)
        prior = prior.clamp(min=math.log(floor))
    return prior


def mean_entropy(entropies: Tensor, near: NeighborLists, kernel: str, rho: float) -> Tensor:
    """Return Eq. 6: the mean [N] of kernel times entropy over the listed neighbors; 0 without neighbors."""
    similarities = near.cosines if kernel == "cos" else (-rho * (2 - 2 * near.cosines)).exp()
    return (similarities * entropies[near.rows]).sum(1) / max(1, near.rows.shape[1])
