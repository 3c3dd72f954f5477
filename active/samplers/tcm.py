"""TCM: one sampler while labels are few, another one from some number of labels per class on.

Source: Doucet et al., "Bridging Diversity and Uncertainty in Active Learning with Self-Supervised Pre-Training", 2024 (arXiv
2403.03728): TypiClust first, then margin. The number of labels at which it switches could not be checked; `labels_per_class` is
ours, one label per class. Any two samplers can be named that do not label images themselves. The first round is that of
`first`. It is `schedule` with two samplers, except that the name in the record and the random stream are its own.
"""

from typing import Annotated

from torch import Tensor
from yacs.config import CfgNode

from active.context import Query, SelectionContext
from active.registry import SAMPLERS, Sampler, refuse_own_labels, wrapped
from active.samplers.schedule import schedule
from dassl.utils.registry import AtLeast, AtMost


def check_stages(node: CfgNode) -> None:
    """Raise ConfigError for a stage that labels images itself."""
    for key in ("FIRST", "THEN"):
        refuse_own_labels(f"TCM.{key}", wrapped(node.TCM[key], node), "take another sampler")


@SAMPLERS.register("tcm", check=check_stages)
def tcm(
    ctx: SelectionContext, *, first: Sampler = "typiclust", then: Sampler = "margin",
    labels_per_class: Annotated[float, AtLeast(0.0), AtMost(1e6)] = 1.0,
) -> Tensor | Query:
    """Return the rows of `first`, or of `then` once there are `labels_per_class` labels per class on average."""
    return schedule(ctx, samplers=(first, then), starts=(0.0, labels_per_class))
