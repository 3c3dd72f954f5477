"""Schedule: several samplers in turn, each from some number of labels per class, or from some round, on.

Source: Doucet et al., "Bridging Diversity and Uncertainty in Active Learning with Self-Supervised Pre-Training", 2024 (arXiv
2403.03728), whose TCM is TypiClust and then margin (`tcm`); this is its general form. `samplers` take turns: each begins at its
value in `starts`, which counts labels per class on average or, with `by: rounds`, rounds from 0. The last one stays. In each
round the run equals that of the sampler whose turn it is, bit for bit: its parameters, its random stream, its name in the
record. The first round is that of the first sampler: random if it needs labels. Inside another sampler, the random stream is
that sampler's.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from yacs.config import CfgNode

from active.context import Query, SelectionContext
from active.registry import SAMPLERS, Samplers
from dassl.utils.errors import ConfigError


def check_starts(node: CfgNode) -> None:
    """Raise ConfigError unless there is a start for each sampler, rising from 0."""
    samplers, starts = node.SCHEDULE.SAMPLERS, node.SCHEDULE.STARTS
    if not samplers or len(starts) != len(samplers):
        raise ConfigError(f"ACTIVE.SCHEDULE.STARTS holds {len(starts)} numbers and ACTIVE.SCHEDULE.SAMPLERS {len(samplers)} "
                          "names; give each sampler its start")
    if not all(type(start) in (int, float) for start in starts) or starts[0] != 0 or list(starts) != sorted(set(starts)):
        raise ConfigError(f"ACTIVE.SCHEDULE.STARTS is {list(starts)}, but must be rising numbers from 0 on, such as [0, 1]")


def stage(round: int, n_labeled: int, n_classes: int, *, starts: Sequence[float], by: str, **_: object) -> int:
    """Return whose turn it is: the last sampler whose start is reached. Rounds count once anything is labeled."""
    unit = n_classes if by == "labels_per_class" else 1
    reached = n_labeled if by == "labels_per_class" else round if n_labeled else 0
    return sum(reached >= start * unit - 1e-9 for start in starts) - 1  # 0.07 * 100 is 7.000000000000001


@SAMPLERS.register("schedule", check=check_starts, stage=stage)
def schedule(
    ctx: SelectionContext, *, samplers: Samplers = ("typiclust", "margin"), starts: tuple[float, ...] = (0.0, 1.0),
    by: Literal["labels_per_class", "rounds"] = "labels_per_class",
) -> Tensor | Query:
    """Return the answer of the sampler whose turn it is."""
    return samplers[stage(ctx.round, len(ctx.labels), ctx.n_classes, starts=starts, by=by)](ctx)
