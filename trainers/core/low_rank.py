"""Low-rank changes of a frozen tower's matrices, as values: the tower's own weights stay as they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRank:
    """A change of a matrix W [out, in] to W + up @ down, with `down` [r, in] and `up` [out, r].

    With `drop`, which its inputs go through, it is computed beside W, as training needs it. Without, the two are merged, unless
    W is of low precision, in which a small change of W would be lost.
    """

    down: Tensor
    up: Tensor
    drop: Callable[[Tensor], Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return what the change adds to the linear map of x [..., in]: [..., out]."""
        inputs = x if self.drop is None else self.drop(x)
        return F.linear(F.linear(inputs, self.down.to(x.dtype)), self.up.to(x.dtype))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the changed linear map of x [..., in]: [..., out]."""
        if self.drop is None and torch.finfo(weight.dtype).bits >= 32:
            return F.linear(x, weight + (self.up @ self.down).to(weight.dtype), bias)
        return F.linear(x, weight, bias) + self(x)


Changes = Mapping[str, LowRank]  # of the attention of one block, by matrix: "q", "k", "v", "o"
