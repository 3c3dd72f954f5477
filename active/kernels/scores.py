"""Acquisition scores and their ranking; higher is asked first.

Logits may be float16, float32 or float64, also memory-mapped: they are brought to float32 block by block. What is returned lies
on the device of what is given, as with all kernels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

BLOCK = 2**22  # numbers of a temporary matrix: 16 MiB in float32; from 32 MiB the C library maps new pages for each
TIE = 1e-10  # share of the largest score within which the lower row is taken
CHUNK = 64  # columns whose maximum is looked at before their ranks


def row_blocks(n_rows: int, width: int) -> Iterator[slice]:
    """Yield slices that cover n_rows, each of at most `BLOCK` numbers if a row holds `width` of them."""
    step = max(1, BLOCK // max(1, width))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def by_block(score: Callable[..., Tensor], *matrices: Tensor, shape: Sequence[int] = ()) -> Tensor:
    """Return score(rows of each matrix, in float32) [N, *shape], put together from blocks of them.

    The output is allocated first; otherwise small results fragment the heap, by gigabytes in the end.
    """
    n_rows, width = len(matrices[0]), max(matrix.shape[1] for matrix in matrices)
    scores = torch.empty(n_rows, *shape, device=matrices[0].device)
    for block in row_blocks(n_rows, width):
        scores[block] = score(*(matrix[block].float() for matrix in matrices))
    return scores


def products(rows: Tensor, other: Tensor) -> Tensor:
    """Return the products [N] of rows [N, D] with one of them, in float32; float16 ones are read in blocks."""
    if rows.dtype != torch.float16:
        return rows @ other
    return by_block(lambda block: block @ other.float(), rows)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy [N], in nats, of the softmax of finite logits [N, C]; in [0, log C], also for saturated rows."""
    return by_block(_entropy, logits)


def least_confidence(logits: Tensor) -> Tensor:
    """Return 1 - p(first) [N], as the sum of the other probabilities: exact also where p(first) rounds to 1."""
    return by_block(lambda block: residuals(block).clamp(min=0).sum(1), logits)


def smallness_of_margin(logits: Tensor) -> Tensor:
    """Return 1 - (p(first) - p(second)) [N], as (1 - p(first)) + p(second): exact also where the margin rounds to 1."""
    return by_block(_smallness_of_margin, logits)


def residuals(logits: Tensor) -> Tensor:
    """Return p - e [N, C] in float32, e the one-hot predicted class: the gradient of the loss of the predicted class.

    The entry of the predicted class is minus the sum of the others, which keeps its digits where the probability rounds
    to 1. Among equal logits the lowest class counts as predicted.
    """
    probs = logits.float().softmax(1)
    predicted = logits.argmax(1, keepdim=True)
    probs.scatter_(1, predicted, 0.0)
    return probs.scatter_(1, predicted, -probs.sum(1, keepdim=True))


def top_rows(scores: Tensor, n: int) -> Tensor:
    """Return the rows of the n largest scores [N], largest first; among equals the lower row comes first.

    Raises ValueError for a NaN score: no sort may decide where it goes.
    """
    if scores.is_floating_point() and scores.isnan().any():
        raise ValueError(f"NaN scores in rows {scores.isnan().nonzero().flatten()[:10].tolist()}")
    return scores.argsort(descending=True, stable=True)[:n]


def lowest_of_largest(scores: Tensor) -> int:
    """Return the lowest row whose float64 score [N] is the largest but for rounding."""
    largest = scores.max()
    return int((scores >= largest - TIE * largest.abs()).int().argmax())


def top_columns_of(blocks: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Return `top_columns` of one or more blocks [N, n] side by side, of which one at a time is held."""
    columns, values, start = torch.empty(0), torch.empty(0), 0
    for block in blocks:
        numbers = torch.arange(start, start + block.shape[1], device=block.device).expand(len(block), -1)
        start += block.shape[1]
        if columns.dim() == 2:  # of an earlier block; it may hold no rows
            numbers, block = torch.cat([columns, numbers], 1), torch.cat([values, block], 1)
        found, values = top_columns(block, min(k, block.shape[1]))
        columns = numbers.gather(1, found)
    return columns, values


def top_columns(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the columns [N, k] of the k largest values in each row, largest first, and the values; lower columns win ties.

    In a wide matrix only the `CHUNK` columns around each of the k largest maxima are ranked: a chunk outside them holds
    nothing that k columns do not beat.
    """
    n_chunks = values.shape[1] // CHUNK
    if n_chunks <= 8 * k:
        return _top_columns(values, k)
    maxima = values[:, : n_chunks * CHUNK].unflatten(1, (n_chunks, CHUNK)).amax(2)
    chunks = _top_columns(maxima, k)[0].sort(1).values
    columns = (CHUNK * chunks[:, :, None] + torch.arange(CHUNK, device=values.device)).flatten(1)
    tail = torch.arange(n_chunks * CHUNK, values.shape[1], device=values.device).expand(len(values), -1)
    columns = torch.cat([columns, tail], 1)
    found, top = _top_columns(values.gather(1, columns), k)
    return columns.gather(1, found), top


def without(rows: Tensor, n_rows: int) -> Tensor:
    """Return the rows of 0..n_rows-1 that are not among `rows`, ascending."""
    free = torch.ones(n_rows, dtype=torch.bool, device=rows.device)
    free[rows] = False
    return free.nonzero().flatten()


def _top_columns(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`topk` with an order among equals: it may keep, and put first, any of them."""
    if k == 0:
        return torch.empty(len(values), 0, dtype=torch.int64, device=values.device), values[:, :0]
    top, columns = values.topk(k)
    last = top[:, -1:]
    tied = ((values >= last).sum(1) > k).nonzero().flatten()  # rows with more columns equal to the last than fit
    for part in tied.split(max(1, BLOCK // (8 * values.shape[1]))) if len(tied) else ():  # the counts below are int64
        above, equal = values[part] > last[part], values[part] == last[part]
        keep = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
        columns[part] = keep.nonzero()[:, 1].view(-1, k)
    columns = columns.sort(1).values
    top = values.gather(1, columns)
    order = top.argsort(dim=1, descending=True, stable=True)
    return columns.gather(1, order), top.gather(1, order)


def _entropy(logits: Tensor) -> Tensor:
    log_probs = logits.log_softmax(1)
    return -(log_probs.exp() * log_probs).sum(1)


def _smallness_of_margin(logits: Tensor) -> Tensor:
    rest = residuals(logits).clamp(min=0)  # probabilities of all but the first class
    return rest.sum(1) + rest.amax(1)
