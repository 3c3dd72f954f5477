"""PromptHerding: uncertainty herding for prompt tuning, on a kernel that tells classes apart and softly balanced over classes.

Ours, built on UHerding (`active.samplers.uherding`). Each pick is

    argmax_i sum_j u_j b_j max(0, k_ij - m_j) (1),

over pool rows i and targets j, all images without a label; m_j is the largest kernel of j with labels and picks so far,
u_j = 1 - (p(1) - p(2)) the smallness of the model's margin, zero-shot CLIP's in a first round without labels. k is
exp(-|phi_i - phi_j|^2 / h^2) of unit rows phi, h the radius by mass of `active.kernels.herding`, in the space of phi. phi is

- `whitened`: unit((S + (tr S / D) I)^(-1/2) (v - mu)) (2), mu and S the mean and covariance of all images. Rows of CLIP share a
  mean of norm 0.7 to 0.9, and few directions dominate their cosines; shrunken whitening lets fine differences count as
  distance.
- `guided`: unit([v ; 1/2 sum_k p_k t_k]) (3), t_k the class directions: images that the model predicts similarly cover each
  other.
- `plain`: v.

b_j = sum_k p_jk (1 + n_k)^(-balance) (4), n_k the labels of class k plus the sum of p_k over the picks so far: images that are
uncertain between classes with few labels count more. b only falls as picks are made, so the lazy search stays exact. Balance 0
leaves it out.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from active.context import Query, SelectionContext
from active.kernels.herding import Herd, asked, mass_radius, of_subset, subset
from active.kernels.memory import compares_all
from active.kernels.scores import row_blocks, smallness_of_margin
from active.registry import SAMPLERS
from dassl.utils.registry import AtLeast, AtMost

GUIDANCE = 0.5  # length of the texts beside an image of length 1
SMALLEST = 1e-12  # mean variance below which all rows are taken as equal


@SAMPLERS.register("promptherding")
def promptherding(
    ctx: SelectionContext, *, kernel: Literal["plain", "whitened", "guided"] = "whitened",
    balance: Annotated[float, AtLeast(0), AtMost(1)] = 0.25, uncertainty: Literal["margin", "none"] = "margin",
    max_pool: Annotated[int, AtLeast(1), AtMost(10**9)] = 200_000, exact: bool = False,
) -> Query:
    """Return `n_query` pool rows, each the one that covers most uncertainty of classes with few labels."""
    if compares_all("promptherding", tuple(ctx.features.shape), max_pool, exact=exact):
        rows, targets, facts = torch.arange(len(ctx.unlabeled_features), device=ctx.device), None, {}
    else:
        rows, targets, facts = subset(ctx)
    logits = ctx.unlabeled_logits[rows]
    weights = smallness_of_margin(logits) if uncertainty == "margin" else torch.ones(len(rows), device=ctx.device)
    phi, centers = KERNELS[kernel](ctx, rows)
    radius = mass_radius(phi, len(ctx.labels) + ctx.n_query, ctx.rng)
    n_candidates = facts.get("candidates", ctx.n_pool)
    if balance:
        balanced = Balanced(weights, logits.float().softmax(1), ctx.labels, balance)
        covering = Herd(phi, balanced.weights(), centers, radius, n_candidates, targets)
        found = asked(covering, ctx.n_query, lambda row: covering.reweigh(balanced.after(row)))
    else:
        found = asked(Herd(phi, weights, centers, radius, n_candidates, targets), ctx.n_query)
    return found if targets is None else of_subset(found, rows, ctx.n_pool, facts)


class Balanced:
    """Weights u_j b_j [N] of (4), given u [N] and probabilities [N, C], as picks are made."""

    def __init__(self, weights: Tensor, probs: Tensor, labels: Tensor, balance: float):
        self._weights, self._probs, self._balance = weights, probs, balance
        self._counts = labels.bincount(minlength=probs.shape[1]).float()

    def weights(self) -> Tensor:
        return self._weights * (self._probs @ (1 + self._counts) ** -self._balance)

    def after(self, row: int) -> Tensor:
        """Return the weights once a row is picked."""
        self._counts += self._probs[row]
        return self.weights()


def whitened(ctx: SelectionContext, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return (2) of some images without a label [n, D] and of labeled ones [M, D]; as they are if all are the same."""
    width, images = ctx.features.shape[1], (ctx.unlabeled_features, ctx.labeled_features)
    total = torch.zeros(width, dtype=torch.float64, device=ctx.device)
    products = total.new_zeros(width, width)
    for part in images:
        for block in row_blocks(*part.shape):
            own = part[block].double()
            total += own.sum(0)
            products += own.T @ own
    n_images = sum(map(len, images))
    mean = total / n_images
    covariance = products / n_images - torch.outer(mean, mean)
    variance = float(covariance.trace()) / width
    if variance <= SMALLEST:
        return images[0][rows], images[1]
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors / (values.clamp(min=0) + variance).sqrt()) @ vectors.T

    def moved(part: Tensor) -> Tensor:
        blocks = [F.normalize((part[block].double() - mean) @ root).float() for block in row_blocks(len(part), width)]
        return torch.cat(blocks) if blocks else part

    return moved(images[0][rows]), moved(images[1])


def guided(ctx: SelectionContext, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return (3) of some images without a label [n, 2D] and of labeled ones [M, 2D]."""

    def joined(images: Tensor, logits: Tensor) -> Tensor:
        return F.normalize(torch.cat([images.float(), GUIDANCE * logits.float().softmax(1) @ ctx.directions], 1))

    return (joined(ctx.unlabeled_features[rows], ctx.unlabeled_logits[rows]),
            joined(ctx.labeled_features, ctx.labeled_logits))


def plain(ctx: SelectionContext, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return some images without a label [n, D] and labeled ones [M, D] as they are."""
    return ctx.unlabeled_features[rows].float(), ctx.labeled_features


KERNELS: dict[str, Callable[[SelectionContext, Tensor], tuple[Tensor, Tensor]]] = {
    "plain": plain, "whitened": whitened, "guided": guided}
