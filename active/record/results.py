"""What happened in a run: records that are written to `results.json` as they are."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate, pairwise
from operator import getitem
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from active.record.certificate import config_hash
from dassl.data.answers import code_of
from dassl.utils.errors import DataError
from dassl.utils.files import json_hash, read_json, write_json

SCHEMA = 2
METRICS_OF_1 = ("accuracy", "macro_f1", "ece")  # fields of a round in schema 1; since then keys of its `metrics`
READ_OF_CONFIG = {"SEED": int, "DATASET": dict[str, Any], "DATASET.NAME": str, "TRAINER.NAME": str, "MODEL.BACKBONE.NAME": str,
                  "ACTIVE": dict[str, Any], "ACTIVE.SAMPLER": str, "ACTIVE.ROUNDS": int, "ACTIVE.QUERY_SIZE": int | str}
READ_OF_DATASET = {"name": str, "n_train": int, "n_test": int, "n_classes": int, "classnames": list[str]}
MEASURED = ("seconds", "peak_memory_mb")  # fields that differ between a round and its repetition


@dataclass(frozen=True)
class RoundRecord:
    """One round. Fractions in [0, 1]; counts are of the whole run so far; seconds of each step; peak memory in MiB.

    `n_asked` = `n_paid` + `n_skipped` - `n_further`, and `n_labeled` = `n_asked` - `n_skipped` - `n_none` - `n_unsure` +
    `n_saved` + `n_known`, `n_known` being the labels known before the first round; under `ACTIVE.UNSURE: half` those of
    `n_unsure` that name a class are labels too. `n_pseudo` counts the model's own guesses that this round trained on: the
    saved labels and those mined for this round alone.
    """

    round: int
    sampler: str
    queried: list[str]  # dataset ids asked in this round, in the order of the picks
    n_labeled: int
    n_paid: int
    n_pseudo: int
    metrics: dict[str, float | None]  # by name, see `dassl.evaluation.metrics`; None without test images
    class_counts: list[int]  # labeled images of each class, by the label they are trained with
    query_hash: str
    seconds: dict[str, float]
    peak_memory_mb: float
    n_saved: int = 0  # images that joined the labeled set with the model's own guess and were not paid for
    pseudo_precision: float | None = None  # share of the `n_pseudo` guesses that are right: a diagnostic, or None
    pseudo_labeled: dict[str, int] = field(default_factory=dict)  # dataset ids that joined so in this round, with the guess
    # dataset ids that people were asked in this round, with the label, or "skip", "none", "unsure", "unsure 3" (label 3)
    answers: dict[str, int | str] = field(default_factory=dict)
    # by name, for metrics that have them: a number for each class, None for a class without test images
    per_class: dict[str, list[float | None]] = field(default_factory=dict)
    refills: list[int] = field(default_factory=list)  # number of ids at the end of `queried` in each further part of the query
    corrections: dict[str, int | str] = field(default_factory=dict)  # ids answered before, with the new answer
    n_known: int = 0
    n_further: int = 0  # second and later opinions on an image, each of which is paid for
    n_asked: int = 0  # images that were asked
    n_skipped: int = 0  # images that nobody could label; they are not paid for, and not asked again
    n_none: int = 0  # images that are of none of the classes
    n_unsure: int = 0  # images whose label is not trained on
    audited: list[str] = field(default_factory=list)  # dataset ids that were labeled in this round for the audit alone
    audit: dict[str, float] = field(default_factory=dict)  # what they say about this round's model, see `active.audit.audited`
    kappa: float | None = None  # agreement with an earlier model with at least C labels fewer, see `active.stopping`
    # what the sampler did instead of comparing all pairs: the index, its parameters, the share of true neighbors found
    approximation: dict[str, int | float | str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 of the prompts at its end, by path in the folder

    @property
    def accuracy(self) -> float | None:
        return self.metrics["accuracy"]

    @property
    def parts(self) -> list[list[str]]:
        """The dataset ids of each part of the round's query: the first, and any further ones that replace skipped images."""
        ends = list(accumulate(self.refills, initial=len(self.queried) - sum(self.refills)))
        return [self.queried[start:end] for start, end in pairwise([0, *ends])]

    @property
    def answers_by_part(self) -> list[dict[str, int | str]]:
        """What people said in each part; the first includes the audited images, the last one asked of them the corrections."""
        others = self.parts[1:]
        later = {path for part in others for path in part}
        parts = [{path: answer for path, answer in self.answers.items() if path not in later},
                 *({path: self.answers[path] for path in part if path in self.answers} for part in others)]
        last = max((place for place, part in enumerate(parts) if part), default=0)
        return [*parts[:last], parts[last] | self.corrections, *parts[last + 1:]]


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
    certificate: dict[str, str] = field(default_factory=dict)  # SHA-256 of config, code, data, weights; and `linear`
    known: dict[str, int | str] = field(default_factory=dict)  # answers known before the first round, by dataset id
    stopped: str = ""  # why a finished run ended before its last round: "kappa 0.985 >= 0.98 after round 7"
    failure: str = ""  # for status "failed": the round that failed, and where its numbers stopped being finite

    @property
    def finished(self) -> bool:
        return self.status == "finished"

    def write(self, path: Path) -> None:
        """Write the whole record atomically, with a checksum of all of it."""
        content = {"schema": self.schema, "status": self.status} | dataclasses.asdict(self)
        write_json(path, content | {"checksum": json_hash(content)})

    @staticmethod
    def read(path: Path) -> "RunResult":
        """Return the record in a file, of this schema or schema 1; DataError if it is none or does not match its hashes."""
        content = read_json(path)
        if not isinstance(content, dict) or content.get("schema") not in (1, SCHEMA):
            raise DataError(f"{path} is not a record of schema 1 or {SCHEMA}")
        is_whole = content.pop("checksum", None) == json_hash(content)
        try:
            rounds = [RoundRecord(**record) for record in _rounds(content)]
            result = RunResult(rounds=rounds, **content)
            result._check_types()
            changed = result._changed()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is not a whole record: {error}") from error
        if changed or not is_whole:
            raise DataError(f"{path}: {changed or 'the content does not match its checksum'}; the file was changed")
        return result

    def _check_types(self) -> None:
        """Raise TypeError or KeyError unless every field, and every entry of config and data set that is read, has its type."""
        for record in (self, *self.rounds):
            for name, hint in _HINTS[type(record)].items():
                if name != "rounds" and not _is_a(getattr(record, name), hint):
                    raise TypeError(f"{name} has a value of the wrong type")
        for tree, hints in ((self.config, READ_OF_CONFIG), (self.dataset, READ_OF_DATASET)):
            for key, hint in hints.items():
                if not _is_a(reduce(getitem, key.split("."), tree), hint):
                    raise TypeError(f"{key} is of the wrong type")
        if self.dataset["n_train"] < 1 or self.zero_shot.keys() - {"accuracy"}:
            raise ValueError("it is of no training image, or of an unknown metric")
        for record in self.rounds:
            if "accuracy" not in record.metrics or record.metrics.keys() != self.rounds[0].metrics.keys():
                raise ValueError(f"round {record.round} has the wrong metrics")
            if not all(value is None or math.isfinite(value) for value in record.metrics.values()):
                raise ValueError(f"a metric of round {record.round} is not a finite number")

    def _changed(self) -> str:
        """Return what does not match its own hash, "" if all does."""
        for record in self.rounds:
            for answer in (*record.answers.values(), *record.corrections.values()):
                code_of(answer)
            answers = record.answers | record.corrections
            if query_hash(record.queried, record.pseudo_labeled, answers, record.audited) != record.query_hash:
                return f"the picks of round {record.round} do not match their hash"
        if self.certificate.get("config", own := config_hash(self.config)) != own:
            return "the config does not match its hash"
        return ""


_HINTS: dict[type, dict[str, Any]] = {kind: get_type_hints(kind) for kind in (RunResult, RoundRecord)}


def _rounds(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Take the rounds out of a record and return them in today's form; older ones had only labels as answers."""
    rounds = content.pop("rounds")
    for record in rounds:
        record.setdefault("n_asked", record["n_paid"])
        if content["schema"] == 1:
            record["metrics"] = {name: record.pop(name) for name in METRICS_OF_1}
    content["schema"] = SCHEMA
    return rounds


def numbers(record: RoundRecord) -> dict[str, int | float]:
    """Return every number of a round by its name; the seconds of its steps are `seconds/<step>`."""
    own = dataclasses.asdict(record)
    own |= own.pop("metrics") | {f"seconds/{step}": seconds for step, seconds in own.pop("seconds").items()}
    own |= {f"audit/{name}": value for name, value in own.pop("audit").items()}
    return {name: value for name, value in own.items() if isinstance(value, (int, float))}


def _is_a(value: Any, hint: Any) -> bool:
    """Return whether a value of JSON is of a type: plain, union, list or dict; an integer is a float too."""
    if type(hint) is type:
        return type(value) in ((int, float) if hint is float else (hint,))
    if hint is Any:
        return True
    parts = get_args(hint)
    if isinstance(hint, UnionType):
        return any(_is_a(value, part) for part in parts)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_is_a(item, parts[0]) for item in value)
    return get_origin(hint) is dict and isinstance(value, dict) and all(_is_a(item, parts[1]) for item in value.values())


def query_hash(
    queried: Sequence[str], pseudo_labeled: Mapping[str, int] | None = None, answers: Mapping[str, int | str] | None = None,
    audited: Sequence[str] = (),
) -> str:
    """Return the SHA-256 of a round's dataset ids in the order of the picks, then of its ids with a label.

    These are the pseudo-labeled ones and those that people labeled, then those whose answer they corrected. Last are the ids
    of the audit.
    """
    labeled = [*(pseudo_labeled or {}).items(), *(answers or {}).items()]
    return hashlib.sha256(json.dumps([*queried, *labeled, *audited]).encode()).hexdigest()
