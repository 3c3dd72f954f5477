"""Random unit rows for the tests of this folder."""

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(n: int, width: int, seed: int = 0) -> Tensor:
    """Return n random rows of norm 1."""
    return F.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)
