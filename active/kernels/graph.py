"""The graph network of GCNAL: nodes are images, edges cosines; it learns to tell labeled from unlabeled nodes.

The normalized adjacency A_hat = (X X' - I) diag(1 / degrees) + I of unit rows X is never built: with T = S / degrees,
A_hat S = X (X' T) - T + S, the same function without any N x N numbers.
"""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from dassl.utils.progress import BAR

MIN_DEGREE = 1e-3  # below it a node has no neighbors to speak of, and dividing by it would drown everything else

logger = logging.getLogger(__name__)


def fit_graph_network(
    features: Tensor, n_pool: int, *, hidden: int, dropout: float, pool_weight: float, steps: int, lr: float,
    weight_decay: float, generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return the hidden features [N, hidden] and logits [N] of all nodes after training; the first `n_pool` are unlabeled.

    h = relu(A_hat X W1 + b1), logit = A_hat dropout(h) W2 + b2. Adam, on the whole graph at once, minimizes
    -mean log sigmoid(logit) over the labeled nodes - `pool_weight` mean log (1 - sigmoid(logit)) over the others.
    Weights start uniform in +-1 / sqrt(outputs).
    Source: Caramalau et al., "Sequential Graph Convolutional Network for Active Learning", CVPR 2021, Section 3.
    """
    inverse = inverse_degrees(features)
    inputs = propagate(features, inverse, features)  # constant, so once: A_hat (X W1) = (A_hat X) W1
    bounds = [((features.shape[1], hidden), hidden**-0.5), ((hidden,), hidden**-0.5), ((hidden, 1), 1.0), ((1,), 1.0)]
    weights = [(bound * (2 * torch.rand(shape, generator=generator) - 1)).to(features.device).requires_grad_()
               for shape, bound in bounds]  # drawn on the CPU, as the masks are: the same numbers on every device
    optimizer = torch.optim.Adam(weights, lr=lr, weight_decay=weight_decay)

    def forward(keep: Tensor | float) -> tuple[Tensor, Tensor]:
        nodes = torch.relu(inputs @ weights[0] + weights[1])
        return nodes, (propagate(features, inverse, nodes * keep @ weights[2]) + weights[3]).flatten()

    for _ in tqdm(range(steps), "graph network", **BAR):
        keep = torch.rand(len(features), hidden, generator=generator) >= dropout
        logits = forward(keep.to(features.device) / (1 - dropout))[1]
        loss = pool_weight * F.softplus(logits[:n_pool]).mean()
        if n_pool < len(features):
            loss = loss + F.softplus(-logits[n_pool:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return forward(1.0)


def inverse_degrees(features: Tensor) -> Tensor:
    """Return 1 / sum_i A_ij [N], A = X X' - I the cosines of unit rows X; 0, with a warning, where that is not positive."""
    degrees = features @ features.sum(0) - 1
    isolated = degrees <= MIN_DEGREE
    if isolated.any():
        logger.warning("%d of %d images have cosines that sum to 0 or less; they get no neighbors",
                       int(isolated.sum()), len(features))
    return (1 / degrees).where(~isolated, 0)


def propagate(features: Tensor, inverse: Tensor, values: Tensor) -> Tensor:
    """Return A_hat S [N, H] for values S, A_hat = (X X' - I) diag(inverse) + I, in O(N D H) and without any N x N."""
    scaled = inverse[:, None] * values
    return features @ (features.T @ scaled) - scaled + values
