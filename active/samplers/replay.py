"""Replay: the queries of another run, round by round, so that what was labeled once can be studied again.

Another learner, backbone or text is trained on the same images that a recorded run asked for. Labels that people gave
in that run come from the record (`ACTIVE.ORACLE: file`), so nobody is asked again. Images that it mined for one round
alone are not in its record and are not replayed.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from yacs.config import CfgNode

from active.context import Query, SelectionContext
from active.record.results import RunResult
from active.registry import SAMPLERS, wrapped
from dassl.data.answers import code_of
from dassl.utils.errors import ConfigError, DataError
from dassl.utils.paths import is_file


def check(node: CfgNode) -> None:
    """Raise ConfigError unless `ACTIVE.REPLAY.RESULTS` is a record with enough rounds (one, if only round 0 replays it)."""
    if not is_file(node.REPLAY.RESULTS):
        raise ConfigError(f"ACTIVE.REPLAY.RESULTS is {node.REPLAY.RESULTS!r}, but must be the results.json to replay")
    n_rounds = len(_record(node.REPLAY.RESULTS).rounds)
    n_needed = node.ROUNDS if "replay" in wrapped(node.SAMPLER, node) else 1
    if n_rounds < n_needed:
        raise ConfigError(f"{node.REPLAY.RESULTS} holds {n_rounds} rounds; set ACTIVE.ROUNDS, now {node.ROUNDS}, to no more")
    if any(round.refills for round in _record(node.REPLAY.RESULTS).rounds[:n_needed]) and not node.REFILL:
        raise ConfigError(f"{node.REPLAY.RESULTS} asked images in place of skipped ones; set ACTIVE.REFILL true to replay them")


def answers(node: CfgNode, classnames: Sequence[str]) -> dict[str, int]:
    """Return people's answers at the end of the record, by dataset id; raises DataError if its classes differ."""
    record = _record(node.REPLAY.RESULTS)
    if record.dataset["classnames"] != list(classnames):
        raise DataError(f"{node.REPLAY.RESULTS} is a run with other classes than this data set's")
    return {path: code_of(answer) for round in record.rounds for path, answer in (round.answers | round.corrections).items()}


def known(node: CfgNode) -> dict[str, int]:
    """Return the answers, by dataset id, known before the record's first round, with the corrections made by its end."""
    record = _record(node.REPLAY.RESULTS)
    corrected = {path: answer for round in record.rounds for path, answer in round.corrections.items() if path in record.known}
    return {path: code_of(answer) for path, answer in (record.known | corrected).items()}


def asks(node: CfgNode) -> set[str]:
    """Return the dataset ids that the record asked and pseudo-labeled."""
    return {path for round in _record(node.REPLAY.RESULTS).rounds for path in (*round.queried, *round.pseudo_labeled)}


def sizes(node: CfgNode, round: int) -> list[int]:
    """Return how many images each part of a recorded round picked; pseudo-labeled ones count in the first."""
    record = _record(node.REPLAY.RESULTS).rounds[round]
    first, *others = map(len, record.parts)
    return [first + len(record.pseudo_labeled), *others]


@SAMPLERS.register("replay", needs_model=False, check=check, answers=answers, known=known, asks=asks, sizes=sizes)
def replay(ctx: SelectionContext, *, results: str = "") -> Query:
    """Return the rows that the record `results` asked and pseudo-labeled in this part of the round, in order.

    Raises ConfigError if that is not `n_query` images, DataError if one of them is not in the pool.
    """
    record = _record(results).rounds[ctx.round]
    asked, pseudo = record.parts[ctx.part], {} if ctx.part else record.pseudo_labeled
    n_picked = len(asked) + len(pseudo)
    if n_picked != ctx.n_query:
        raise ConfigError(f"round {ctx.round} of {results} picked {n_picked} images, but this run picks {ctx.n_query}: "
                          "ACTIVE.QUERY_SIZE, ACTIVE.REFILL or the data set differs")
    return Query(_rows(ctx, asked, results), _rows(ctx, list(pseudo), results),
                 torch.tensor(list(pseudo.values()), dtype=torch.int64))


def _rows(ctx: SelectionContext, paths: Sequence[str], results: str) -> Tensor:
    row_of = {position: row for row, position in enumerate(ctx.ids.tolist())}
    rows = [row_of.get(ctx.find(path)) for path in paths]
    if None in rows:
        raise DataError(f"{results} asked for images that are not in this pool, first {paths[rows.index(None)]!r}")
    return torch.tensor(rows, dtype=torch.int64)


def _record(results: str) -> RunResult:
    return RunResult.read(Path(results))
