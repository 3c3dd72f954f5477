"""CLIPAdapter: a small network on frozen image features, mixed with them, before they are compared with the zero-shot texts.

Source: Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters", IJCV 2024. Logits are s n(v').t_k,

    v' = r relu(U relu(D v)) + (1 - r) v (1),

n(.) of length 1, D [width / 4, width] and U [width, width / 4] without biases, drawn from U(-1, 1) / sqrt(inputs); r = 0.2.
Before its first step it is not zero-shot CLIP, since its network is random.
What the authors' code gets wrong: r is chosen for each data set, apparently on its test split; the text tower runs in each
step although its output is constant; a width of 1024, that of one backbone, is hard-coded. Here r is fixed, and the node
`OPTIM` sets the steps: 200 of Adam at 1e-3, each on all labels.
"""

from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.learner import LEARNERS, ClassTexts, Head

REDUCTION = 4


@LEARNERS.register("CLIPAdapter", begins_as_zero_shot=False)
class CLIPAdapter(Head):
    """`down` [width / 4, width] and `up` [width, width / 4]."""

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        ratio: Annotated[float, AtLeast(0), AtMost(1)] = 0.2,
        template: str = "dataset",
    ):
        """`ratio` is r."""
        super().__init__(clip, texts, template)
        width, inner = clip.feature_width, clip.feature_width // REDUCTION
        self.ratio = ratio
        self.down, self.up = (nn.Parameter(torch.from_numpy(rng.uniform(-1, 1, shape) / shape[1] ** 0.5).float())
                              for shape in ((inner, width), (width, inner)))

    def features(self, features: Tensor) -> Tensor:
        """Return n(v') of (1)."""
        adapted = F.relu(F.relu(features @ self.down.T) @ self.up.T)
        return F.normalize(self.ratio * adapted + (1 - self.ratio) * features, dim=1)

    def constants(self) -> dict[str, Any]:
        return {"ratio": self.ratio}
