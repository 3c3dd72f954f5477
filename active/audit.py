"""How good a model is, told by a few random labels that it never trains on.

Before round 0 a part of the pool is reserved, uniformly at random: it is never a query, never trained on and never mined.
People label its first images. The model's confidence on all of the reserved part, corrected by what these labels say of it,
estimates the accuracy on new images like those of the pool. On what is left of the pool it would be another number, as active
selection takes the hard images out.

Sources: Angelopoulos et al., "Prediction-Powered Inference", Science 2023 (with lambda 1); Wilson, JASA 1927. Ours: the
effective size of the sample is held between half and twice its own, and not above it while fewer than three are wrong or right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from dassl.data.answers import NONE, UNSURE
from dassl.utils.errors import ConfigError
from dassl.utils.seeding import rng_for

LEVEL = 0.95
RESERVED = 10  # images for each audited one
LARGEST_SHARE = 0.2  # of the pool
MIN_CORRELATION = 0.1  # of confidence and being right, below which confidence says nothing
GUARDED = 3  # as long as fewer are wrong, or right, the interval is not narrower than Wilson's


@dataclass(frozen=True)
class Reserved:
    """Rows of the train split that are reserved, in random order; the first are labeled, beside the queries of some rounds."""

    rows: np.ndarray
    n_audited: int
    n_rounds: int = 1

    def asked(self, round: int) -> np.ndarray:
        """Return the rows that are labeled in a round."""
        parts = np.array_split(self.rows[: self.n_audited], self.n_rounds)
        return parts[round] if round < self.n_rounds else self.rows[:0]


def reserve(rows: np.ndarray, n_audited: int, n_rounds: int, seed: int) -> Reserved:
    """Return what is set aside of rows for so many labels; raises ConfigError if that is more than a fifth of them."""
    most = int(LARGEST_SHARE * len(rows))
    if n_audited > most:
        raise ConfigError(f"ACTIVE.AUDIT asks for {n_audited} labels, but at most a fifth of {len(rows)} images can be set "
                          f"aside; give it {most} or less, or a share such as 10%" if most else
                          f"ACTIVE.AUDIT asks for {n_audited} labels, but {len(rows)} images are too few to set a fifth aside")
    return Reserved(rng_for(seed, "audit").permutation(rows)[: min(RESERVED * n_audited, most)], n_audited, n_rounds)


def audited(confidence: np.ndarray, guesses: Sequence[int], answers: Sequence[int]) -> dict[str, float]:
    """Return what a record says of an audit: accuracy, its interval and counts; {} without an answer that tells.

    `confidence` [N] is of all reserved images; `guesses` and `answers` [n], labels or codes of `dassl.data.answers`, are of the
    first n. Images of no class are left out, and the labels count alone then: which others of the reserved images are of none,
    nobody knows. Of images that nobody could label, one end of the interval takes all guesses for wrong, the other for right.
    """
    kept = [place for place, code in enumerate(answers) if code != NONE]
    labels = [UNSURE - 1 - answers[place] if answers[place] < UNSURE else answers[place] for place in kept]
    unknown = np.array([label < 0 for label in labels], dtype=bool)
    right = np.array([guesses[place] == label for place, label in zip(kept, labels, strict=True)], dtype=bool)
    known, counts = confidence[kept], {"n_none": len(answers) - len(kept), "n_unknown": int(unknown.sum())}
    if unknown.all():
        return {}
    if len(kept) < len(answers):
        confidence = known = np.ones(len(kept))  # which says nothing
    found = estimate(confidence, known[~unknown], right[~unknown])
    worst, best = (estimate(confidence, known, right | (unknown & value)) for value in (False, True))
    share = found["accuracy"]
    return {"accuracy": share, "low": min(worst["low"], share), "high": max(best["high"], share), "n": found["n"],
            "wilson_low": worst["wilson_low"], "wilson_high": best["wilson_high"], **counts}


def estimate(confidence: np.ndarray, known: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Return accuracy, low, high, n, wilson_low and wilson_high: an accuracy with its interval, and that by labels alone.

    `confidence` [N], the largest probabilities, are of all reserved images, `known` [n] of the labeled ones among them; `right`
    [n] says whether their guess is right. Where confidence does not go with being right, the labels count alone.
    """
    n, known, right = len(right), known.astype(np.float64), right.astype(np.float64)
    share = float(right.mean())
    low, high = wilson(share, n)
    plain = {"accuracy": share, "low": low, "high": high, "n": n, "wilson_low": low, "wilson_high": high}
    if n < 2 or known.std() == 0 or right.std() == 0 or np.corrcoef(known, right)[0, 1] <= MIN_CORRELATION:
        return plain
    value = min(max(float(confidence.mean(dtype=np.float64) + (right - known).mean()), 0.0), 1.0)
    of_labels = (1 - n / len(confidence)) * (right - known).var(ddof=1) / n
    of_reserved = value * (1 - value) / len(confidence)  # these images are a sample too
    low, high = wilson(value, effective_size(value, of_labels + of_reserved, right))
    return plain | {"accuracy": value, "low": low, "high": high}


def effective_size(value: float, variance: float, right: np.ndarray) -> float:
    """Return how many labels alone would give the variance of an estimate, within the two guards."""
    n = len(right)
    inside = min(max(value, 1 / (2 * n)), 1 - 1 / (2 * n))
    size = min(max(inside * (1 - inside) / variance, n / 2), 2 * n) if variance > 0 else n
    return min(size, n) if min(right.sum(), n - right.sum()) < GUARDED else size


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the score interval of a share of n, of any n > 0."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    center, scale = (share + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n)
    half = scale * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(float(center - half), 0.0), min(float(center + half), 1.0)
