"""BAIT with one Bernoulli variable per row: the labels that lower the expected error of a logistic model most.

Source: Ash, Goel, Krishnamurthy and Kakade, "Gone Fishing: Neural Active Learning with Fisher Embeddings", NeurIPS 2021, whose
full form takes n C x d C numbers and a (d C)^2 matrix; the binary form is that of arXiv 2404.08981: whether the predicted class
is right is a Bernoulli variable with probability p = max_k p_k. With w = p (1 - p), F = (1/n) sum_U w v v^T and M = ridge I +
sum_L w v v^T, each pick is the row by which tr(M^-1 F) falls most,

    argmax_i w_i b_i / (1 + w_i a_i), a_i = v_i^T M^-1 v_i, b_i = v_i^T M^-1 F M^-1 v_i (1).

After pick x, with q = M^-1 x, r = M^-1 F q and s = w / (1 + w x.q): b -= 2 s (v.q)(v.r) - s^2 (q^T F q)(v.q)^2, a -= s (v.q)^2,
M^-1 -= s q q^T: two matrix-vector products per pick, exact, in float64. The authors' code first picks twice the query and then
drops half of it by the same formula, which is left out here.
"""

from typing import Annotated

import torch
from torch import Tensor
from tqdm import tqdm

from active.context import Query, SelectionContext
from active.kernels.memory import need_memory
from active.kernels.scores import least_confidence, lowest_of_largest, row_blocks
from active.registry import SAMPLERS
from dassl.utils.progress import BAR
from dassl.utils.registry import AtLeast, AtMost


@SAMPLERS.register("bait_binary")
def bait_binary(ctx: SelectionContext, *, ridge: Annotated[float, AtLeast(1e-6), AtMost(1e6)] = 1.0) -> Query:
    """Return `n_query` pool rows by (1)."""
    width = ctx.features.shape[1]
    need_memory("bait_binary", 8 * (len(ctx.unlabeled_features) * width + 3 * width**2), ctx.device)
    everything, labeled = ctx.unlabeled_features.double(), ctx.labeled_features.double()
    fisher = weighted_square(everything, bernoulli(ctx.unlabeled_logits)) / len(everything)  # F
    inverse = torch.linalg.inv(ridge * torch.eye(width, dtype=torch.float64, device=ctx.device)
                               + weighted_square(labeled, bernoulli(ctx.labeled_logits)))  # M^-1
    pool, weights = everything[: ctx.n_pool], bernoulli(ctx.logits)
    near, fall = (squares(pool, matrix) for matrix in (inverse, inverse @ fisher @ inverse))  # a, b
    free, picked, falls = torch.ones(ctx.n_pool, dtype=torch.bool, device=ctx.device), [], []
    at_first = weights * fall / (1 + weights * near)
    for _ in tqdm(range(ctx.n_query), "BAIT", **BAR):
        falls_now = (weights * fall / (1 + weights * near)).where(free, -torch.inf)
        row = lowest_of_largest(falls_now)
        picked.append(row)
        falls.append(falls_now[row].clone())  # a view would keep the whole alive
        free[row] = False
        q = inverse @ pool[row]
        step, along, through = weights[row] / (1 + weights[row] * pool[row] @ q), pool @ q, pool @ (inverse @ (fisher @ q))
        fall = fall - 2 * step * along * through + step**2 * (q @ fisher @ q) * along**2
        near = near - step * along**2
        inverse = inverse - step * torch.outer(q, q)
    return Query(torch.tensor(picked, dtype=torch.int64), scores=torch.stack(falls).float(), pool_scores=at_first)


def bernoulli(logits: Tensor) -> Tensor:
    """Return w = p (1 - p) [N] in float64, p the largest probability."""
    rest = least_confidence(logits).double()
    return rest * (1 - rest)


def weighted_square(rows: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i w_i v_i v_i^T [D, D]."""
    found = rows.new_zeros(rows.shape[1], rows.shape[1])
    for block in row_blocks(*rows.shape):
        found += (rows[block] * weights[block, None]).T @ rows[block]
    return found


def squares(rows: Tensor, matrix: Tensor) -> Tensor:
    """Return v_i^T A v_i [N] of rows and a matrix A, without a second copy of the rows."""
    found = rows.new_empty(len(rows))
    for block in row_blocks(*rows.shape):
        found[block] = (rows[block] @ matrix * rows[block]).sum(1)
    return found
