"""The file of a model: a learner's parameters, and what they belong to. `PromptTrainer.save` writes it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dassl.utils.errors import UserError
from dassl.utils.paths import check_file
from dassl.utils.tensors import state_hash


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what the file of a model says that it belongs to, and its tensors; raises UserError if it is damaged.

    "template" is the data set's, for who has the file without the data set; files of before do not say it.
    """
    try:
        check_file(path)
        with safe_open(path, "pt") as file:
            belongs_to = dict(json.loads((file.metadata() or {}).get("belongs_to", "{}")))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise UserError(f"cannot read the prompts {path}: {error}") from error
    if belongs_to.get("checksum", own := digest(state)) != own:  # files of before have none
        raise UserError(f"{path} does not match its checksum; the file was changed")
    return belongs_to, state


def digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors: names, shapes, types and bytes."""
    return state_hash(state, lambda name, value: f"{name} {value.dtype} {tuple(value.shape)}")
