"""How good a model is, told by a few random labels that it never trains on.

Before round 0 a part of the pool is reserved, uniformly at random: it is never queried, trained on or mined. People label its
first images. The model's confidence on the whole reserved part, corrected by these labels, estimates the accuracy on new
images like those of the pool. The rest of the pool would give another number, since active selection takes the hard images
out.

Sources: Angelopoulos et al., "Prediction-Powered Inference", Science 2023 (with lambda 1); Wilson, JASA 1927. Ours: the
effective sample size is kept between half and twice the number of labels, and not above it while fewer than three are wrong or
right.
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
MIN_CORRELATION = 0.1  # between confidence and being right; below it, confidence is ignored
GUARDED = 3  # while fewer are wrong, or right, the interval is not narrower than Wilson's


@dataclass(frozen=True)
class Reserved:
    """Rows of the train split that are reserved, in random order; the first are labeled along with queries of some rounds."""

    rows: np.ndarray
    n_audited: int
    n_rounds: int = 1

    def asked(self, round: int) -> np.ndarray:
        """Return the reserved rows that are labeled in a round."""
        parts = np.array_split(self.rows[: self.n_audited], self.n_rounds)
        return parts[round] if round < self.n_rounds else self.rows[:0]


def reserve(rows: np.ndarray, n_audited: int, n_rounds: int, seed: int) -> Reserved:
    """Return what is set aside of rows for this many labels; raises ConfigError if they exceed a fifth of the rows."""
    most = int(LARGEST_SHARE * len(rows))
    if n_audited > most:
        raise ConfigError(f"ACTIVE.AUDIT asks for {n_audited} labels, but at most a fifth of {len(rows)} images can be set "
                          f"aside; give it {most} or less, or a share such as 10%" if most else
                          f"ACTIVE.AUDIT asks for {n_audited} labels, but {len(rows)} images are too few to set a fifth aside")
    return Reserved(rng_for(seed, "audit").permutation(rows)[: min(RESERVED * n_audited, most)], n_audited, n_rounds)


def audited(confidence: np.ndarray, guesses: Sequence[int], answers: Sequence[int]) -> dict[str, float]:
    """Return an audit as in the record: accuracy, its interval and counts; {} without a usable answer.

    `confidence` [N] is of all reserved images; `guesses` and `answers` [n], labels or codes of `dassl.data.answers`, are of the
    first n. If some images are of no class, they are left out and only labels count, since nobody knows which other reserved
    images are of no class. For images that nobody could label, one end of the interval takes all guesses as wrong, the other as
    right.
    """
    kept = [place for place, code in enumerate(answers) if code != NONE]
    labels = [UNSURE - 1 - answers[place] if answers[place] < UNSURE else answers[place] for place in kept]
    unknown = np.array([label < 0 for label in labels], dtype=bool)
    right = np.array([guesses[place] == label for place, label in zip(kept, labels, strict=True)], dtype=bool)
    known, counts = confidence[kept], {"n_none": len(answers) - len(kept), "n_unknown": int(unknown.sum())}
    if unknown.all():
        return {}
    if len(kept) < len(answers):
        confidence = known = np.ones(len(kept))  # carries no information
    found = estimate(confidence, known[~unknown], right[~unknown])
    worst, best = (estimate(confidence, known, right | (unknown & value)) for value in (False, True))
    share = found["accuracy"]
    return {"accuracy": share, "low": min(worst["low"], share), "high": max(best["high"], share), "n": found["n"],
            "wilson_low": worst["wilson_low"], "wilson_high": best["wilson_high"], **counts}


def estimate(confidence: np.ndarray, known: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Return accuracy, low, high, n, wilson_low and wilson_high: an accuracy, its interval, and the one from labels alone.

    `confidence` [N], the largest probabilities, are of all reserved images, `known` [n] of the labeled ones among them; `right`
    [n] says whether their guess is right. If confidence does not correlate with being right, only labels count.
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
    """Return the number of labels that would give an estimate's variance without confidences, within the two guards."""
    n = len(right)
    inside = min(max(value, 1 / (2 * n)), 1 - 1 / (2 * n))
    size = min(max(inside * (1 - inside) / variance, n / 2), 2 * n) if variance > 0 else n
    return min(size, n) if min(right.sum(), n - right.sum()) < GUARDED else size


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return Wilson's score interval of a share of n, for any n > 0."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    center, scale = (share + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n)
    half = scale * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(float(center - half), 0.0), min(float(center + half), 1.0)
