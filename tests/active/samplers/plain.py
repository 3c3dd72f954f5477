"""Slow references for the shared kernels: lists and floats, written from the formulas and not from the kernels."""

import math

import numpy as np

ROUNDING = 2e-6  # a squared distance that is not above this share of the squared norms counts as 0


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    powers = [math.exp(z - top) for z in logits]
    return [power / sum(powers) for power in powers]


def entropy_of(probs: list[float]) -> float:
    return -sum(p * math.log(p) for p in probs if p > 0)


def dot(x: list[float], y: list[float]) -> float:
    return sum([a * b for a, b in zip(x, y, strict=True)])  # a list, which is faster: millions of pairs come here


def squared_distance(x: list[float], y: list[float]) -> float:
    return sum([(a - b) ** 2 for a, b in zip(x, y, strict=True)])


def ranked(scores: list[float], n: int) -> list[int]:
    """Return the n largest scores. Python's sort is stable, so equal ones stay in row order."""
    return sorted(range(len(scores)), key=lambda row: -scores[row])[:n]


def drawn(mass: list[float], u: float) -> int:
    """The first row at which the running sum is above u times the total."""
    target, running = u * sum(mass), 0.0
    for row, weight in enumerate(mass):
        running += weight
        if running > target:
            return row
    return max(row for row, weight in enumerate(mass) if weight > 0)


def nearest_distances(points, picked) -> list[float]:
    """The squared distance of each point to the nearest one picked; 1 while nothing is picked."""
    norms = [dot(x, x) for x in points]
    return [min((gap if gap > ROUNDING * (norms[row] + norms[other]) else 0.0
                 for other in picked for gap in [squared_distance(x, points[other])]), default=1.0)
            for row, x in enumerate(points)]


def d2_sample(points, n, rng, first) -> list[int]:
    """D^2 sampling with the distances recomputed from the points at every pick."""
    picked = [first]
    while len(picked) < min(n, len(points)):
        mass = [0.0 if row in picked else nearest for row, nearest in enumerate(nearest_distances(points, picked))]
        rest = [row for row in range(len(points)) if row not in picked]
        picked.append(drawn(mass, rng.random()) if sum(mass) > 0 else rest[int(rng.random() * len(rest))])
    return picked


def greedy_seeds(points, k, rng, weights) -> list[int]:
    """Of each 2 + floor(ln k) points drawn by w D^2, the first of those that leave the least sum of w D^2, up to rounding."""
    def inertia(gaps):
        return sum(weight * gap for weight, gap in zip(weights, gaps, strict=True))

    tolerance = ROUNDING * sum(weight * dot(x, x) for weight, x in zip(weights, points, strict=True))
    picked = [drawn(weights, rng.random())]
    gaps = nearest_distances(points, picked)
    while len(picked) < k and inertia(gaps) > 0:
        uniforms = [rng.random() for _ in range(2 + math.floor(math.log(k)))]
        candidates = [drawn([weight * gap for weight, gap in zip(weights, gaps, strict=True)], u) for u in uniforms]
        left = {row: list(map(min, gaps, nearest_distances(points, [row]))) for row in candidates}
        least = min(map(inertia, left.values()))
        picked.append(next(row for row in candidates if inertia(left[row]) <= least + tolerance))
        gaps = left[picked[-1]]
    return picked


def k_means(points, k, rng, weights=None) -> tuple[list[list[float]], list[int]]:
    """Weighted Lloyd from greedy seeds; an empty cluster takes the point farthest from its own center."""
    if not weights or not any(weight > 0 for weight in weights):
        weights = [1.0] * len(points)
    return lloyd(points, [points[row] for row in greedy_seeds(points, k, rng, weights)], weights)


def lloyd(points, centers, weights) -> tuple[list[list[float]], list[int]]:
    width = len(points[0])
    means = [sum(x[d] for x in points) / len(points) for d in range(width)]
    variance = sum((x[d] - means[d]) ** 2 for x in points for d in range(width)) / len(points) / width
    labels = None
    for _ in range(300):
        before, labels = labels, [nearest_center(x, centers) for x in points]
        owner, far = list(labels), [squared_distance(x, centers[label]) for x, label in zip(points, labels, strict=True)]
        for cluster in range(len(centers)):
            if not any(weights[row] > 0 for row in range(len(points)) if owner[row] == cluster):
                row = max(range(len(points)), key=lambda row: far[row])
                owner[row], far[row] = cluster, -1.0
        moved = []
        for cluster, center in enumerate(centers):
            mine = [row for row in range(len(points)) if owner[row] == cluster]
            total = sum(weights[row] for row in mine)
            mean = [sum(weights[row] * points[row][d] for row in mine) / (total or 1.0) for d in range(width)]
            moved.append(mean if total else center)
        shift, centers = sum(squared_distance(x, y) for x, y in zip(moved, centers, strict=True)), moved
        if labels == before or shift <= 1e-4 * variance:
            break
    labels = [nearest_center(x, centers) for x in points]
    used = sorted(set(labels))
    return [centers[cluster] for cluster in used], [used.index(label) for label in labels]


def nearest_center(x, centers) -> int:
    return min(range(len(centers)), key=lambda cluster: squared_distance(x, centers[cluster]))


def nearest_member(points, centers, labels, cluster) -> int:
    """The lowest row among those that are nearest up to rounding, as both rows of a cluster of two are."""
    gaps = {row: squared_distance(x, centers[cluster]) for row, x in enumerate(points) if labels[row] == cluster}
    return min(row for row, gap in gaps.items() if gap <= min(gaps.values()) + ROUNDING)


def nearest_rows(points, row, k) -> list[int]:
    """The k rows of largest cosine to a row of unit norm, without itself."""
    others = [other for other in range(len(points)) if other != row]
    return sorted(others, key=lambda other: -dot(points[row], points[other]))[:k]


def fresh(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 77])
