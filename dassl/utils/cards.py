"""The memory of CUDA devices."""

import contextlib
from collections.abc import Iterator

import torch

from dassl.utils.errors import UserError, first_line


def free_bytes(device: torch.device) -> int:
    """Return how many bytes fit on a card: those that nobody has, and those that this process holds without using them.

    So the answer is the same whatever the process has done before, as far as its own tensors are gone.
    """
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


@contextlib.contextmanager
def full_card_named() -> Iterator[None]:
    """Raise a UserError where a card has no room, with the keys that take less of it."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"the card has no room: {first_line(error)}; ACTIVE.DEVICE cpu picks on the CPU, MODEL.PREC bf16 takes "
                        "about half, and smaller batches take less") from error
