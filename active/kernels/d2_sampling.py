"""D^2 sampling: rows drawn by their squared distance to those drawn before, and the distances that it takes.

Rows may be float16, float32 or float64; what is computed is float32, and sums that decide a draw are float64.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from active.kernels.scores import by_block
from dassl.utils.progress import BAR

ROUNDING = 2e-6  # squared distances below this share of the squared norms are rounding errors of float32 products


def d2_sampling(
    n: int, n_rows: int, distances_to: Callable[[int], Tensor], rng: np.random.Generator, *, first: int
) -> Tensor:
    """Return n distinct rows of n_rows: `first`, then each drawn with probability D_i^2, D_i the distance to those before it.

    `distances_to(row)` gives the squared distances [n_rows] of all rows to one. Once every D_i^2 is 0, the rest is drawn
    uniformly from the rows not yet picked. Each draw takes one uniform number u and is the first row whose cumulative sum
    is above u times the total. The sums are float64, so that devices draw the same rows up to rounding. A draw is one number
    that is read from the device of the distances.
    Source: Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007, Section 2.2.
    """
    picked = [first]
    nearest: float | Tensor = torch.inf
    for _ in tqdm(range(1, min(n, n_rows)), "D^2 sampling", **BAR):
        distances = distances_to(picked[-1])
        if len(picked) == 1:
            free = torch.ones(n_rows, dtype=torch.bool, device=distances.device)
        free[picked[-1]] = False
        nearest = distances.double().clamp(max=nearest)
        share = rng.random()
        row = int(_at_shares((nearest * free).cumsum(0), [share]))
        if row < 0:
            rest = free.nonzero().flatten()
            row = int(rest[int(share * len(rest))])
        picked.append(row)
    return torch.tensor(picked, dtype=torch.int64)


def squared_distances(squared_norms: Tensor, squared_norm: Tensor, products: Tensor) -> Tensor:
    """Return |x_i - y|^2 [N] from |x_i|^2 [N], |y|^2 and x_i.y [N]; or of all pairs [N, M], from [N, 1], [M] and [N, M].

    What is not above the rounding error of float32 products is exactly 0, so that equal rows have distance 0.
    """
    norms = squared_norms + squared_norm
    distances = norms - 2 * products
    return distances.where(distances > ROUNDING * norms, 0)


def squared_norms(rows: Tensor) -> Tensor:
    """Return |x_i|^2 [N] in float32."""
    return by_block(lambda block: block.square().sum(1), rows)


def drawn_rows(mass: Tensor, n: int, rng: np.random.Generator) -> list[int]:
    """Return n times the first row whose cumulative mass is above u times the total; none, without a draw, if all mass is 0."""
    cumulative = mass.cumsum(0)
    return _at_shares(cumulative, [rng.random() for _ in range(n)]).tolist() if cumulative[-1] > 0 else []


def _at_shares(cumulative: Tensor, shares: list[float]) -> Tensor:
    """Return the first rows [n] whose cumulative mass [N] is above shares of the total; -1 if the total is 0."""
    total = cumulative[-1:]
    rows = torch.searchsorted(cumulative, torch.tensor(shares, dtype=torch.float64, device=total.device) * total, right=True)
    rows = rows.minimum(torch.searchsorted(cumulative, total))  # a share times the total may round up to the total
    return rows.where(total > 0, -1)
