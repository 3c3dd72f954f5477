"""A card that is pretended: tensors that say that they are on CUDA, compute on the CPU, and watch what a card would mind.

Inside `with pretend_cuda() as card:` the device "cuda" works without a card. An operation of a tensor there with one on the
CPU raises an error as on a card, and so do `numpy()` and random numbers of a generator of the CPU. `card.read_backs` counts, by
operation, where the host has to wait for the card: values that are read, copies to the CPU, and shapes that depend on values.
`card.uploads` counts copies of CPU tensors to the card, `card.waits` those of them for which the host waits until the card has
done all that it was given before: all but `non_blocking` ones. Results are those of the CPU, bit for bit.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
INSIDE = torch.device("meta")  # what torch's own code sees: without a driver, its engine of gradients fails for CUDA
SHAPED_BY_VALUES = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
READS = {"_local_scalar_dense", "equal", "_linalg_check_errors"} | SHAPED_BY_VALUES
INDEXES = {"index", "_unsafe_index", "index_put", "index_put_", "_unsafe_index_put"}
JOINS = {"cat", "stack"}  # they take no number from the CPU, as arithmetic does
PLAIN_ATTENTION = 0  # of `_fused_sdp_choice`: matrix products, which the CPU has too
MEMORY = 80 * 2**30  # of the card, all free
FACTS = {"mem_get_info": lambda *device: (MEMORY, MEMORY), "get_device_capability": lambda *device: (9, 0),
         "get_device_name": lambda *device: "pretended", "max_memory_allocated": lambda *device: 0,
         "memory_reserved": lambda *device: 0, "memory_allocated": lambda *device: 0}
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class PretendCuda(Tensor):
    """A tensor that reports the device cuda:0 and holds its numbers in `inner`, on the CPU."""

    inner: Tensor
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "PretendCuda":
        own = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype, device=INSIDE)
        own.inner = inner
        return own

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} of a pretended tensor outside of `pretend_cuda`")

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the tensor itself where nothing changes, as any tensor does."""
        device, dtype = torch._C._nn._parse_to(*args, **{key: kwargs[key] for key in kwargs if key != "copy"})[:2]
        is_here = (device is None or _is_card(device)) and dtype in (None, self.dtype)
        return self if is_here and not kwargs.get("copy") else super().to(*args, **kwargs)

    def cuda(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the tensor itself."""
        return self

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_without_lists(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_without_lists(index), value)

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None, **named: Any) -> Tensor:
        """Return a tensor of some data on the card."""
        return torch.tensor(data, dtype=dtype or self.dtype, **({"device": CUDA} | named))

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        """Raise TypeError, as on a card."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy; copy it to the CPU first")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        """Return the numbers in lists, as of any tensor; torch refuses it to subclasses."""
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"PretendCuda({self.inner!r})"


class PretendedCard(TorchDispatchMode):
    """Carries out operations of `PretendCuda` tensors on what they hold, and counts; see the head of this file."""

    def __init__(self) -> None:
        super().__init__()
        self.read_backs: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    @property
    def n_read_backs(self) -> int:
        return self.read_backs.total()

    def forget(self) -> None:
        """Start counting from 0 again."""
        self.read_backs.clear()
        self.uploads.clear()
        self.waits.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        if func.has_kernel_for_dispatch_key(COMPOSITE):  # in inference mode: what it is made of is to be seen
            with self:
                return func.decompose(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, PretendCuda)]
        if any(tensor.device == INSIDE for tensor in tensors):
            raise NotImplementedError(f"{func} is given a tensor that torch made on its own, without numbers")
        asked = kwargs.get("device")
        to_card = _is_card(asked) if asked is not None else bool(there)
        if name == "copy_":
            to_card = isinstance(args[0], PretendCuda)
        elif there:
            _refuse_mixed(func, name, args, tensors)
        self._count(name, args, kwargs, there, to_card)
        return PLAIN_ATTENTION if there and name == "_fused_sdp_choice" else _carried_out(func, args, kwargs, there, to_card)

    def _count(self, name: str, args: Any, kwargs: Any, there: list[PretendCuda], to_card: bool) -> None:
        """Note a read-back or a copy to the card."""
        if there and (name in READS or _repeats_by_values(name, args, kwargs) or _indexes_by_mask(name, args)):
            self.read_backs[name] += 1
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            if isinstance(source, PretendCuda) and not to_card:
                self.read_backs[name] += 1
            elif to_card and not isinstance(source, PretendCuda):
                self.uploads[name] += 1
                is_free = kwargs.get("non_blocking", args[2] if name == "copy_" and len(args) > 2 else False)
                self.waits[name] += not is_free
        elif there and name in INDEXES:
            n_sent = sum(own is not None and not isinstance(own, PretendCuda) for own in args[1])
            self.uploads[name] += n_sent
            self.waits[name] += n_sent


def on_card(tensor: Tensor) -> PretendCuda:
    """Return a CPU tensor as one on the card, without a copy and uncounted."""
    return PretendCuda(tensor)


@contextlib.contextmanager
def pretend_cuda() -> Iterator[PretendedCard]:
    """Let the device "cuda" be pretended, and yield the card with its counts."""
    only_lifts = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device="cuda")` copies by an operation of its own
    torch._C._ensureCUDADeviceGuardSet()  # without a driver CUDA's functions are not called, as for torch's own fake tensors
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a module that moves gets new parameters of this class
    try:
        with (mock.patch.multiple("torch.cuda", _lazy_init=mock.DEFAULT, **FACTS),
              mock.patch.object(Tensor, "pin_memory", lambda own, *device: own), PretendedCard() as card):
            yield card
    finally:
        torch._C._set_only_lift_cpu_tensors(only_lifts)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)


def _without_lists(index: Any) -> Any:
    """Return an index with tensors of the CPU in place of lists and arrays: torch would make ones without numbers."""
    if isinstance(index, tuple):
        return tuple(_without_lists(own) for own in index)
    if isinstance(index, list) and not index:
        return torch.empty(0, dtype=torch.int64)
    return torch.as_tensor(index) if isinstance(index, (list, np.ndarray)) else index


def _is_card(device: Any) -> bool:
    return torch.device(device).type in (CUDA.type, INSIDE.type)


def _refuse_mixed(func: Any, name: str, args: Any, tensors: list[Tensor]) -> None:
    """Raise RuntimeError if tensors are on both devices where a card refuses that.

    It takes single numbers from the CPU in arithmetic, though not to write into, and indices from there.
    """
    here = [tensor for tensor in tensors if not isinstance(tensor, PretendCuda)]
    if name in INDEXES and isinstance(args[0], PretendCuda):
        here = [own for own in args[2:3] if isinstance(own, Tensor) and not isinstance(own, PretendCuda)]
    is_written = func._schema.is_mutable and any(own is tensors[0] for own in here)
    if is_written or any(own.dim() > 0 or name in JOINS for own in here):
        raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                           f"({func})")


def _carried_out(func: Any, args: Any, kwargs: Any, there: list[PretendCuda], to_card: bool) -> Any:
    """Return a function's answer, on the card or not; a tensor that is changed in place stays the object that it was."""
    if to_card and getattr(kwargs.get("generator"), "device", CUDA).type != "cuda":
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    own, given = {id(tensor.inner): tensor for tensor in there}, (args, kwargs)
    args, kwargs = tree_map_only(PretendCuda, lambda tensor: tensor.inner, (args, kwargs))
    answer = func(*args, **(kwargs | ({"device": CPU} if kwargs.get("device") is not None else {})))

    def placed(tensor: Tensor) -> Tensor:
        if (known := own.get(id(tensor))) is None:
            return PretendCuda(tensor)
        if known.shape != tensor.shape and torch.Tag.inplace_view in func.tags:  # such as `squeeze_`
            with no_dispatch():
                func(*given[0], **given[1])
        if known.shape != tensor.shape:
            raise NotImplementedError(f"{func} changes the shape of a pretended tensor in place")
        return known

    return tree_map_only(Tensor, placed, answer) if to_card else answer


def _indexes_by_mask(name: str, args: Any) -> bool:
    """Tell whether rows are looked up by a mask on the card; writing one number by a mask needs no look-up."""
    if name not in INDEXES or (name.startswith("index_put") and args[2].numel() == 1):
        return False
    return any(isinstance(own, PretendCuda) and own.dtype in (torch.bool, torch.uint8) for own in args[1])


def _repeats_by_values(name: str, args: Any, kwargs: Any) -> bool:
    return name == "repeat_interleave" and kwargs.get("output_size") is None
