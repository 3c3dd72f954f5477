"""PromptHerding: uncertainty herding for prompt tuning, on a kernel that tells classes apart and softly balanced over classes.

Ours, built on UHerding (`active.samplers.uherding`). Each pick is

    argmax_i sum_j u_j b_j max(0, k_ij - m_j) (1),

over pool rows i and targets j, all images without a label; m_j is the largest kernel of j with labels and picks so far,
u_j = 1 - (p(1) - p(2)) the smallness of the model's margin, zero-shot CLIP's in a first round without labels. k is
exp(-|phi_i - phi_j|^2 / h^2) of unit rows phi, h the radius by mass of `active.kernels.herding`, in the space of phi. phi is

- `whitened`: unit((S + (tr S / D) I)^(-1/2) (v - mu)) (2), mu and S the mean and covariance of all images. Rows of CLIP share a
  mean of norm 0.7 to 0.9, and few directions rule their cosines; shrunken whitening lets fine differences count as distance.
- `guided`: unit([v ; 1/2 sum_k p_k t_k]) (3), t_k the class directions: images that the model reads alike cover each other.
- `plain`: v.

b_j = sum_k p_jk (1 + n_k)^(-balance) (4), n_k the labels of class k and the sum of p_k over the picks so far: what is uncertain
between classes with few labels counts more. b only falls as picks are made, so that the lazy search stays exact. Balance 0
leaves it out.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from active.context import Query, SelectionContext
from active.kernels.herding import Herd, asked, mass_radius
from active.kernels.memory import need_pairs
from active.kernels.scores import row_blocks, smallness_of_margin
from active.registry import SAMPLERS
from dassl.utils.registry import AtLeast, AtMost

GUIDANCE = 0.5  # length of the texts beside an image of length 1
SMALLEST = 1e-12  # mean variance below which all rows are one


@SAMPLERS.register("promptherding")
def promptherding(
    ctx: SelectionContext, *, kernel: Literal["plain", "whitened", "guided"] = "whitened",
    balance: Annotated[float, AtLeast(0), AtMost(1)] = 0.25, uncertainty: Literal["margin", "none"] = "margin",
    max_pool: Annotated[int, AtLeast(1), AtMost(10**9)] = 200_000,
) -> Query:
    """Return `n_query` pool rows, each the one that covers most uncertainty of classes with few labels."""
    need_pairs("promptherding", ctx.n_pool, ctx.features.shape[1], max_pool)
    rows, centers = KERNELS[kernel](ctx)
    weights = smallness_of_margin(ctx.unlabeled_logits) if uncertainty == "margin" else torch.ones(len(rows))
    radius = mass_radius(rows, len(ctx.labels) + ctx.n_query, ctx.rng)
    if not balance:
        return asked(Herd(rows, weights, centers, radius, ctx.n_pool), ctx.n_query)
    probs, counts = ctx.unlabeled_logits.float().softmax(1), ctx.labels.bincount(minlength=ctx.n_classes).float()

    def balanced() -> Tensor:
        return weights * (probs @ (1 + counts) ** -balance)

    def after(row: int) -> None:
        counts.add_(probs[row])
        covering.reweigh(balanced())

    covering = Herd(rows, balanced(), centers, radius, ctx.n_pool)
    return asked(covering, ctx.n_query, after)


def whitened(ctx: SelectionContext) -> tuple[Tensor, Tensor]:
    """Return rows (2) of images without a label [N + S, D] and of labeled ones [M, D]; as they are if all are the same."""
    images = ctx.unlabeled_features, ctx.labeled_features
    n_rows, width = sum(map(len, images)), ctx.features.shape[1]
    total, products = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
    for part in images:
        for block in row_blocks(*part.shape):
            rows = part[block].double()
            total += rows.sum(0)
            products += rows.T @ rows
    mean = total / n_rows
    covariance = products / n_rows - torch.outer(mean, mean)
    variance = float(covariance.trace()) / width
    if variance <= SMALLEST:
        return images
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors / (values.clamp(min=0) + variance).sqrt()) @ vectors.T
    return tuple(F.normalize((part.double() - mean) @ root).float() for part in images)


def guided(ctx: SelectionContext) -> tuple[Tensor, Tensor]:
    """Return rows (3) of images without a label [N + S, 2D] and of labeled ones [M, 2D]."""
    parts = (ctx.unlabeled_features, ctx.unlabeled_logits), (ctx.labeled_features, ctx.labeled_logits)
    return tuple(F.normalize(torch.cat([images.float(), GUIDANCE * logits.float().softmax(1) @ ctx.directions], 1))
                 for images, logits in parts)


def plain(ctx: SelectionContext) -> tuple[Tensor, Tensor]:
    """Return images without a label [N + S, D] and labeled ones [M, D] as they are."""
    return ctx.unlabeled_features, ctx.labeled_features


KERNELS: dict[str, Callable[[SelectionContext], tuple[Tensor, Tensor]]] = {
    "plain": plain, "whitened": whitened, "guided": guided}
