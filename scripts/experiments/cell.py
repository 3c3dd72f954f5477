"""One cell of an experiment, run in this process as `train.py` runs it."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from yacs.config import CfgNode

from dassl.utils.errors import ConfigError, InUseError, TrainingError, UserError, WaitingForLabels
from dassl.utils.held import Held
from trainers.core import job

DONE, FAILED, REFUSED, WAITING, BUSY = "done", "failed", "refused", "waiting", "busy"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: its `kind`, and the error behind it.

    `refused` is a failure that only another config or other code can change, `failed` any other; `waiting` is for people's
    labels, `busy` for another process that is at work in the folder.
    """

    kind: str
    error: str = ""


def configured(words: Sequence[str]) -> CfgNode:
    """Return the checked, frozen config of the words of a `train.py` command; raises ConfigError."""
    cfg = job.build_config(*job.parser().parse(words))
    job.check(cfg)
    job.check_parts(cfg)
    job.settle(cfg)
    return cfg


def is_done(cfg: CfgNode) -> bool:
    """Tell whether the output folder holds this run, finished and whole; raises UserError if it holds another one."""
    return job.finished(cfg) is not None


def run_cell(words: Sequence[str], held: Held, *, wait: bool = False) -> Outcome:
    """Run a cell to its end and return what became of it; nothing but a request to stop is raised.

    Where another process is at work in the cell's folder the outcome is `busy`, or, with `wait`, that process is waited for.
    """
    return outcome_of(lambda: job.train(configured(words), held, wait=wait, is_cell=True))


def outcome_of(work: Callable[[], object]) -> Outcome:
    """Return what became of some work; nothing but a request to stop is raised."""
    try:
        work()
    except InUseError as error:
        return Outcome(BUSY, str(error))
    except WaitingForLabels as error:
        return Outcome(WAITING, str(error))
    except (ConfigError, TrainingError) as error:
        return Outcome(REFUSED, str(error))
    except UserError as error:
        return Outcome(FAILED, str(error))
    except Exception:
        return Outcome(FAILED, traceback.format_exc().strip())
    return Outcome(DONE)
