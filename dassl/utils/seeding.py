"""Random streams: one for each purpose, so that changing one never moves another.

Every random number comes from a stream keyed by (seed, purpose, ...). The global generators of Python, NumPy and torch
are never used, and no key depends on `PYTHONHASHSEED`, on worker processes or on the order of calls.
"""

import hashlib
import os
import secrets

import numpy as np


def seed_for(seed: int, purpose: str, *key: int | str) -> int:
    """Return a 63-bit integer that is a fixed function of the seed, the purpose and the key."""
    text = ascii((int(seed), purpose, *key))  # unlike repr, the same under every Unicode version
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def rng_for(seed: int, purpose: str, *key: int | str) -> np.random.Generator:
    """Return the random stream of one purpose, such as `rng_for(1, "batches", round, epoch)`. 0 is a seed."""
    return np.random.default_rng(seed_for(seed, purpose, *key))


def use_deterministic_algorithms(only: bool) -> None:
    """Let torch use only deterministic algorithms, or else the fastest. Call it before the first GPU call.

    With `only`, an operation that has no deterministic algorithm raises RuntimeError and names itself.
    """
    import torch

    if only:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may add in varying order, see its manual
    torch.use_deterministic_algorithms(only)


def use_tf32(allowed: bool) -> None:
    """Let GPUs round the factors of fp32 products to TF32's 10 bits, or keep them exact; cuDNN would round by default."""
    import torch

    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def drawn_seed() -> int:
    """Return a seed from the operating system, for runs that ask for none (`SEED: -1`); it is recorded in the results."""
    return secrets.randbelow(2**31)
