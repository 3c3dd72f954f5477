"""ActiveFT: one center per label is moved until the centers are spread like the pool; each one's nearest row is asked.

Source: Xie et al., "Active Finetuning: Exploiting Annotation Budget in the Pretraining-Finetuning Paradigm", CVPR 2023 (arXiv
2303.14382). Unit centers theta start at random rows; `steps` of Adam at `lr` minimize

    mean_i log(1 + S_k / exp(v_i.theta_k / tau)), k = argmax_k v_i.theta_k, S_k = sum_j exp(sg(theta_j).theta_k / tau) (1),

tau = `temperature`, sg: held fixed in the gradient; j = k is one of the terms. Then, center by center, the nearest row that is
not taken is asked. Labeled rows are further, fixed centers. A first round without labels follows the paper. The term j = k is
most of S, so centers repel each other little: picks are much like those of spherical k-means. Only the model's features are
used, not its predictions. The gradient is written out: a step is one product of rows and centers, without a graph. Above
`max_rows` rows, the centers are fitted to a random subset; all rows can be picked.
What the authors' code gets wrong: labels are ignored; picks depend on the order of a Python set and on global generators.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from active.context import SelectionContext
from active.kernels.scores import row_blocks
from active.registry import SAMPLERS
from dassl.utils.large import single
from dassl.utils.linear import pair_products
from dassl.utils.progress import BAR
from dassl.utils.registry import AtLeast, AtMost


@SAMPLERS.register("activeft")
def activeft(
    ctx: SelectionContext, *, steps: Annotated[int, AtLeast(0), AtMost(10**6)] = 300,
    lr: Annotated[float, AtLeast(0), AtMost(1e3)] = 0.001, temperature: Annotated[float, AtLeast(1e-3), AtMost(1e3)] = 0.07,
    max_rows: Annotated[int, AtLeast(1), AtMost(10**9)] = 100_000,
) -> Tensor:
    """Return `n_query` pool rows, each the nearest to a center, in the order of the centers."""
    pool, rows = single(ctx.features), single(ctx.unlabeled_features)
    centers = pool[ctx.permutation(ctx.n_pool)[: ctx.n_query]]
    if len(rows) > max_rows:
        rows = rows[ctx.permutation(len(rows))[:max_rows].sort().values]
    return nearest_free(pool, moved(rows, centers, ctx.labeled_features.float(), steps, (lr, temperature)))


def moved(rows: Tensor, centers: Tensor, fixed: Tensor, steps: int, rates: tuple[float, float]) -> Tensor:
    """Return unit centers [B, D] after steps of Adam on (1); `rates` are its learning rate and tau."""
    (lr, temperature), centers = rates, centers.clone()
    optimizer = torch.optim.Adam([centers], lr=lr)
    near_fixed = _largest(rows, fixed)[0] if len(fixed) else rows.new_full((len(rows),), -torch.inf)
    for _ in tqdm(range(steps), "ActiveFT", **BAR):
        unit = F.normalize(centers, dim=1)
        slope = gradient(rows, unit, fixed, near_fixed, temperature)
        along = slope - (slope * unit).sum(1, keepdim=True) * unit  # the tangential part
        centers.grad = along / centers.norm(dim=1, keepdim=True)
        optimizer.step()
    return F.normalize(centers, dim=1)


def gradient(rows: Tensor, centers: Tensor, fixed: Tensor, near_fixed: Tensor, temperature: float) -> Tensor:
    """Return the gradient [B, D] of (1) with respect to unit centers; rows [N] nearest to a fixed center add nothing.

    `near_fixed` [N] are the largest cosines to fixed centers, -inf if there are none.
    """
    products = centers @ torch.cat([centers, fixed]).T / temperature  # [B, B + M]
    log_sums = products.logsumexp(1)
    pull = products.softmax(1) @ torch.cat([centers, fixed]) / temperature  # the gradient of log S_k, [B, D]
    largest, nearest = _largest(rows, centers)
    weights = (log_sums[nearest] - largest / temperature).sigmoid() * (largest > near_fixed) / len(rows)
    own = torch.zeros_like(centers).index_add_(0, nearest, rows * weights[:, None])
    return weights.new_zeros(len(centers)).index_add_(0, nearest, weights)[:, None] * pull - own / temperature


def nearest_free(rows: Tensor, centers: Tensor) -> Tensor:
    """Return, center by center, the row [B] of largest cosine that no earlier center took; the lowest of equal ones."""
    free, picked = torch.ones(len(rows), dtype=torch.bool, device=rows.device), []
    for center in centers:
        picked.append((rows @ center).where(free, -torch.inf).argmax(0, keepdim=True))  # stays on the device
        free.index_fill_(0, picked[-1], False)
    return torch.cat(picked)


def _largest(rows: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest cosine [N] of each row to a center, and the center."""
    largest, nearest = rows.new_empty(len(rows)), rows.new_empty(len(rows), dtype=torch.int64)
    for block in row_blocks(len(rows), max(centers.shape)):
        largest[block], nearest[block] = pair_products(rows[block], centers).max(1)
    return largest, nearest
