"""Run a recorded run again and say whether it is the same.

    python -m active.verify output/run/results.json [--root DATA] [--fresh]

The recorded config is run in a temporary folder, with the recorded number of threads and the recorded product of linear
layers; picks, labels and metrics of every round must be equal bit for bit, as they are on the same machine with the same
versions. Labels that people gave come from the record. `--fresh` also extracts the features again instead of taking them from
the cache; `--plugins` allows the code that the record names as ACTIVE.PLUGINS to run. The exit code is 0 if all is equal and
1 if not, or if the run could not be repeated; 2 for a wrong command line; 130 for Ctrl-C.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open
from safetensors.torch import save

from active.oracles.registry import ORACLES
from active.record.folder import linear_used, selected_on
from active.record.results import MEASURED, RunResult
from active.registry import SAMPLERS
from dassl.config.cli import Parser, command
from dassl.config.setup import ABSENT
from dassl.config.setup import differences as config_differences
from dassl.data.answers import code_of, written
from dassl.data.sheets import sheet
from dassl.utils.environment import PROJECT
from dassl.utils.errors import UserError
from dassl.utils.files import write_text
from dassl.utils.run_folder import RESULTS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    flags = Parser(prog="active.verify", description=__doc__,
                   formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("results", type=Path, help="the results.json of a finished run")
    flags.add_argument("--root", help="folder that holds the data sets, if it is not the recorded one")
    flags.add_argument("--fresh", action="store_true", help="extract the features again")
    flags.add_argument("--plugins", action="store_true", help="run the code of the plug-ins that the record names")
    try:
        arguments = flags.parse_args(argv)
        old = RunResult.read(arguments.results)
        if not old.finished:
            raise UserError(f"{arguments.results} is of a run that is not finished")
        if (plugins := old.config["ACTIVE"]["PLUGINS"]) and not arguments.plugins:
            named = ", ".join(map(repr, plugins))
            raise UserError(f"the record names plug-ins, which are code: {named}; look at them, and allow them by --plugins")
        with tempfile.TemporaryDirectory() as folder:
            new = run_again(old, Path(folder), arguments.root, fresh=arguments.fresh)
    except UserError as error:
        print(f"active.verify: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        print("\nactive.verify: stopped by Ctrl-C; nothing is left behind", file=sys.stderr)  # noqa: T201
        return 130
    versions = [(what, version) for what, version in old.environment.items() if what != "commit"]
    different = [what for what, value in (*old.certificate.items(), *versions)
                 if what != "config" and (new.certificate | new.environment).get(what) != value]
    changed = [own for own in config_differences(old.config, new.config) if own.old is not ABSENT]  # others are newer keys
    different += ["config"] if changed else []
    note = f" (now with other {', '.join(different)} than recorded)" if different else ""
    first = next(differences(old, new), None)
    print(f"equal: {len(old.rounds)} rounds, all picks, labels and metrics{note}" if first is None  # noqa: T201
          else f"different{note}, first {first}")
    return 0 if first is None else 1


def run_again(old: RunResult, folder: Path, root: str | None, *, fresh: bool) -> RunResult:
    """Return the record of the same config, run in `folder`; raises UserError with what `train.py` said if it failed."""
    output, config = folder / "run", folder / "config.yaml"
    if images := old.config["DATASET"].get("IMAGEFOLDER"):
        images.setdefault("COPIES", "ask")  # as before the key existed
    for component in SAMPLERS:
        for parameter in component.parameters if component.key in old.config["ACTIVE"] else ():
            old.config["ACTIVE"][component.key].setdefault(parameter.key, parameter.before)
    if old.config["ACTIVE"].get("KNOWN_LABELS"):  # the file may have moved or changed by now
        known = {path: written(code_of(answer), old.dataset["classnames"]) for path, answer in old.known.items()}
        write_text(folder / "known.csv", sheet([("path", "label"), *known.items()]))
        old.config["ACTIVE"] |= {"KNOWN_LABELS": str(folder / "known.csv"), "RENAMED_CLASSES": ""}
    config.write_text(yaml.safe_dump(old.config), "utf-8")
    restore = ORACLES[old.config["ACTIVE"].get("ORACLE", "labels")].facts.get("restore", lambda *_: None)
    for record in old.rounds:
        if record.answers:
            for part, answers in enumerate(record.answers_by_part):
                restore(output, record.round, part, {path: written(code_of(answer), old.dataset["classnames"])
                                                     for path, answer in answers.items()})
    words = ["--config-file", config, "--output-dir", output, *(["--root", root] if root else []),
             "MODEL.LINEAR", linear_used(old.environment),
             "ACTIVE.DEVICE", "cpu" if selected_on(old.environment) == "cpu" else "auto",
             *(["CACHE_DIR", folder / "cache"] if fresh else [])]
    threads = {"OMP_NUM_THREADS": old.environment["threads"]} if old.environment.get("threads", "").isdigit() else {}
    done = subprocess.run([sys.executable, PROJECT / "train.py", *map(str, words)], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, errors="backslashreplace", env=os.environ | threads)
    if done.returncode:
        raise UserError(f"the run could not be repeated; it ended with exit code {done.returncode}:\n{done.stderr.strip()}")
    new = RunResult.read(output / RESULTS)
    for place, (before, now) in enumerate(zip(old.rounds, new.rounds, strict=False)):
        new.rounds[place] = now = dataclasses.replace(  # a sheet with agreed answers has no second opinions
            now, n_paid=now.n_paid - now.n_further + before.n_further, n_further=before.n_further)
        for name, digest in before.files.items():
            if name in now.files and digest in former_sha256s(output / name):
                now.files[name] = digest
    return new


def former_sha256s(path: Path) -> list[str]:
    """Return the SHA-256s that a prompts file would have without its template and checksum, as earlier files do."""
    with safe_open(path, "pt") as file:
        metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    about, found = json.loads(metadata["belongs_to"]), []
    for newer in ("template", "checksum"):
        about.pop(newer, None)
        found.append(hashlib.sha256(save(state, metadata | {"belongs_to": json.dumps(about)})).hexdigest())
    return found


def differences(old: RunResult, new: RunResult) -> Iterator[str]:
    """Yield a line for each place where two records differ in what they computed, in the order of the rounds."""
    for name in ("dataset", "zero_shot", "known"):
        yield from _differing(name, getattr(old, name), getattr(new, name))
    for before, after in zip(old.rounds, new.rounds):  # noqa: B905  a different number of rounds is reported below
        leave_out = (*MEASURED, *([] if before.files else ["files"]))  # records older than hashes of prompts have none
        one, other = dataclasses.asdict(before), dataclasses.asdict(after)
        yield from _differing(f"in round {before.round}: ", *({key: value for key, value in record.items()
                                                              if key not in leave_out} for record in (one, other)))
    yield from _differing("rounds", len(old.rounds), len(new.rounds))


def _differing(place: str, old: Any, new: Any) -> Iterator[str]:
    """Yield the places, down to single values, where two values of JSON differ."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for key in old:
            yield from _differing(f"{place}{'' if place.endswith(' ') else '.'}{key}", old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differing(f"{place}[{index}]", one, other)
    elif old != new:
        yield f"{place}: {old!r} is now {new!r}"


if __name__ == "__main__":
    command("active.verify", main)
