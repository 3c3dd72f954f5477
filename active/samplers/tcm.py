"""TCM: one sampler while labels are few, another one from some labels a class on.

Source: Doucet et al., "Bridging Diversity and Uncertainty in Active Learning with Self-Supervised Pre-Training", 2024 (arXiv
2403.03728): TypiClust first, then margin. From how many labels on could not be checked; `labels_per_class` is ours, one label a
class. Any two samplers can be named that have people label all that they propose. The first round is that of `first`.
It is `schedule` with two samplers, but for the name in the record and the random stream, which are its own.
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
    """Return the rows of `first`, or of `then` once there are `labels_per_class` labels a class on average."""
    return schedule(ctx, samplers=(first, then), starts=(0.0, labels_per_class))
