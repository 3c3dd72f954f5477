"""What the pool tells about a run: the audit of each round's model, and how much predictions still change."""

import logging
from typing import Any

import torch

from active.audit import audited
from active.plan import Run, State
from active.record.folder import prompts_path
from active.record.results import RunResult
from active.stopping import kappa, reference
from dassl.evaluation.evaluate import check_finite

logger = logging.getLogger(__name__)


def watched(plan: Run, state: State, model: Any, round: int) -> dict[str, Any]:
    """Return what the pool tells about a round's reported model, as fields of its record: the audit, and kappa.

    Raises TrainingError if the model's logits are not finite: without test images, nothing else would tell before the record.
    """
    found: dict[str, Any] = {"audited": [plan.dataset.train[row].path for row in plan.audit_rows(round).tolist()]}
    if not plan.watches:
        return found
    logits = state.predict(plan.trainer, model).logits
    check_finite(logits)
    state.guesses[round] = guesses = logits.argmax(1)
    rows = torch.from_numpy(plan.reserved.rows.astype("int64"))
    if answers := plan.oracle.audited(rows):
        confidence = logits[rows].softmax(1).amax(1).numpy()
        found["audit"] = audited(confidence, guesses[rows[: len(answers)]].tolist(), answers)
    n_classes, open_rows = logits.shape[1], (state.pool.round_of < 0).nonzero().flatten()
    earlier = reference(state.n_labeled, len(state.pool.labeled) - len(state.pool.pseudo_labeled), n_classes)
    if earlier is not None and len(open_rows):
        if earlier not in state.guesses:  # in a run that was continued
            old = plan.trainer.load(prompts_path(plan.output, earlier))
            state.guesses[earlier] = plan.trainer.predict(old, "train").logits.argmax(1)
        found["kappa"] = kappa(state.guesses[earlier][open_rows], guesses[open_rows], n_classes)
    return found


def is_enough(plan: Run, result: RunResult) -> bool:
    """Tell whether the last round's predictions agree enough with earlier ones to end the run, and record it."""
    last = result.rounds[-1] if result.rounds else None
    if not plan.stop or last is None or last.kappa is None or last.kappa < plan.stop:
        return False
    result.stopped = f"kappa {last.kappa:.3f} >= {plan.stop:g} after round {last.round}"
    logger.info("the run ends before its last round: %s", result.stopped)
    return True
