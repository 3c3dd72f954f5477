"""CEC's calibrated entropy: the prior that divides each class's probabilities, and the entropy of a row's neighbors.

Source: Safaei and Patel, "Active Learning for Vision-Language Models", WACV 2025 (arXiv 2410.22187), Eqs. 4 and 6.
"""

import logging
import math

from torch import Tensor

from active.kernels.neighbors import neighbors
from active.kernels.scores import top_columns

logger = logging.getLogger(__name__)


def log_prior(logits: Tensor, n_support: int, support: str, floor: float = 0.0) -> Tensor:
    """Return the logarithm of Eq. 4's class prior [C]."""
    log_probs = logits.log_softmax(1)
    rows, largest = top_columns(log_probs.T, min(n_support, len(logits)))  # [C, n_support]
    supports = largest.T if support == "own" else log_probs[rows.unique()]
    prior = supports.logsumexp(0) - math.log(len(supports))
    if floor > 0 and bool((prior < math.log(floor)).any()):
        logger.info("cec: the prior of %d classes is raised to %g", int((prior < math.log(floor)).sum()), floor)
        prior = prior.clamp(min=math.log(floor))
    return prior


def neighbor_entropy(entropies: Tensor, features: Tensor, k: int, kernel: str, rho: float) -> Tensor:
    """Return Eq. 6: the mean [N] of kernel times entropy over the k nearest other rows; 0 without neighbors."""
    rows, cosines = neighbors(features, k)
    similarities = cosines if kernel == "cos" else (-rho * (2 - 2 * cosines)).exp()
    return (similarities * entropies[rows]).sum(1) / max(1, rows.shape[1])
