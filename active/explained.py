"""Why images were picked: the sampler's scores, as a table that people can read."""

import math
from collections.abc import Sequence
from dataclasses import replace

from active.context import Query
from active.kernels.scores import top_rows, without
from dassl.data.sheets import sheet


def without_scores(query: Query) -> Query:
    """Return a query without its scores."""
    return replace(query, scores=None, pool_scores=None)


def score_table(query: Query, paths: Sequence[str], *, with_pool: bool) -> str:
    """Return the CSV text of a query in pool rows, `paths` [N] of the pool: path, number of the pick from 1, score.

    With `with_pool`, and a sampler that scores every row, rows that are not asked follow by falling score, as before the first
    pick; a pick's score may depend on earlier picks. Without a score the cell is empty.
    """
    rows: list[tuple[str, int | str, float | str]] = [(paths[row], number, _shown(score)) for number, (row, score) in enumerate(
        zip(query.rows.tolist(), query.scores.tolist(), strict=True), start=1)]
    if with_pool and query.pool_scores is not None:
        rest = without(query.rows, len(paths))
        values = query.pool_scores[rest].nan_to_num(nan=-math.inf)
        rows += [(paths[row], "", _shown(float(query.pool_scores[row]))) for row in rest[top_rows(values, len(rest))].tolist()]
    return sheet([("path", "pick", "score"), *rows])


def _shown(score: float) -> float | str:
    return score if math.isfinite(score) else ""
