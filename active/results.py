"""What happened in a run: records that go to `results.json` as they are."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from active.certificate import config_hash
from dassl.utils.errors import DataError
from dassl.utils.files import json_hash, read_json, write_json

SCHEMA = 1
MEASURED = ("seconds", "peak_memory_mb")  # what differs between a round and its repetition


@dataclass(frozen=True)
class RoundRecord:
    """One round. Fractions in [0, 1]; counts are of the whole run so far; seconds of each step; peak memory in MiB.

    `n_labeled` = `n_paid` + `n_saved`. `n_pseudo` are the model's own guesses that this round trained on: the saved labels
    and the images mined for this round alone.
    """

    round: int
    sampler: str
    queried: list[str]  # dataset ids asked in this round, in the order of the picks
    n_labeled: int
    n_paid: int
    n_pseudo: int
    accuracy: float | None  # None, as the next two, where there are no test images
    macro_f1: float | None
    ece: float | None
    class_counts: list[int]  # labeled images of each class, by the label they are trained with
    query_hash: str
    seconds: dict[str, float]
    peak_memory_mb: float
    n_saved: int = 0  # images that joined the labeled set with the model's own guess and were not paid for
    pseudo_precision: float | None = None  # share of the `n_pseudo` guesses that is right: a diagnostic, None without any
    pseudo_labeled: dict[str, int] = field(default_factory=dict)  # dataset ids that joined so in this round, with the guess
    answers: dict[str, int] = field(default_factory=dict)  # dataset ids that people labeled in this round, with the label
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 of the prompts that it ended with, by path in the folder


@dataclass
class RunResult:
    """A whole run; the content of `results.json`."""

    config: dict[str, Any]
    environment: dict[str, str]
    dataset: dict[str, Any]
    zero_shot: dict[str, float | None] = field(default_factory=dict)
    rounds: list[RoundRecord] = field(default_factory=list)
    status: str = "running"
    schema: int = SCHEMA
    certificate: dict[str, str] = field(default_factory=dict)  # SHA-256 of config, code, data, weights
    failure: str = ""  # of a run whose last round failed, of status "failed": the round and what went out of the numbers

    @property
    def finished(self) -> bool:
        return self.status == "finished"

    def write(self, path: Path) -> None:
        """Write the whole record atomically, with a checksum of all of it."""
        content = {"schema": self.schema, "status": self.status} | dataclasses.asdict(self)
        write_json(path, content | {"checksum": json_hash(content)})

    @staticmethod
    def read(path: Path) -> "RunResult":
        """Return the record of a file; raises DataError if it is none or does not match its hashes."""
        content = read_json(path)
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise DataError(f"{path} is not a record of schema {SCHEMA}")
        is_whole = content.pop("checksum", None) == json_hash(content)
        try:
            rounds = [RoundRecord(**record) for record in content.pop("rounds")]
            result = RunResult(rounds=rounds, **content)
            changed = result._changed()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is not a whole record: {error}") from error
        if changed or not is_whole:
            raise DataError(f"{path}: {changed or 'the content does not match its checksum'}; the file was changed")
        return result

    def _changed(self) -> str:
        """Return what does not match its own hash, "" if all does."""
        for record in self.rounds:
            if query_hash(record.queried, record.pseudo_labeled, record.answers) != record.query_hash:
                return f"the picks of round {record.round} do not match their hash"
        if self.certificate.get("config", own := config_hash(self.config)) != own:
            return "the config does not match its hash"
        return ""


def query_hash(
    queried: Sequence[str], pseudo_labeled: Mapping[str, int] | None = None, answers: Mapping[str, int] | None = None
) -> str:
    """Return the SHA-256 of a round's dataset ids in the order of the picks, then of its ids with a label.

    These are the pseudo-labeled ones and those that people labeled.
    """
    labeled = [*(pseudo_labeled or {}).items(), *(answers or {}).items()]
    return hashlib.sha256(json.dumps([*queried, *labeled]).encode()).hexdigest()
