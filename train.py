"""Run active learning of prompts and other learners: parse arguments, set up, run, print the table.

    python train.py --config-file configs/quickstart.yaml
    python train.py --config-file A.yaml B.yaml --root DATA --seed 1 --output-dir output/run OPTIM.MAX_EPOCH 100
    python train.py --list
    python train.py --list-backbones SigLIP2
"""

if __name__ == "__main__":
    from dassl.utils import starting

    starting.begin()

import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from active.record.certificate import code_hash
from active.record.folder import made_by, move_aside
from active.record.report import in_unit, table
from dassl.config.cli import command
from dassl.utils.errors import UserError
from dassl.utils.events import stop_on_sigterm, stopped_by
from dassl.utils.held import Held
from dassl.utils.run_folder import RESULTS
from trainers.core import job

logger = logging.getLogger(__name__)


def print_list() -> None:
    """Print every registered component with its YAML keys and defaults."""
    for registry in filter(list, job.REGISTRIES):  # there are trainers only if a plug-in adds some
        print(f"{registry.kind}s ({registry.node}):")
        for component in registry:
            node = f"{registry.node}.{component.key}"
            keys = "  ".join(f"{parameter.key}={parameter.default!r}" for parameter in component.parameters)
            print(f"  {component.name:<16} {f'{node}: {keys}' if keys else ''}".rstrip())


def evaluate_only(cfg: CfgNode, model_dir: Path) -> None:
    """Print the test metrics of stored prompts, leaving out test images that the run was trained on."""
    import torch

    from dassl.evaluation.evaluate import build_metrics, evaluate
    from trainers.core.build import build_trainer

    record, path = job.record_of(model_dir)
    files, inputs = job.prepared(cfg, Held(), ("test",))
    dataset = files.dataset
    seen = {name for round in record.rounds for name in (*round.queried, *round.pseudo_labeled)} if record else set()
    rows = torch.tensor([row for row, datum in enumerate(dataset.test) if datum.path not in seen], dtype=torch.int64)
    if not len(rows):
        raise UserError(f"{dataset.name} has no test images to evaluate on" + (" besides those of the run" if seen else ""))
    if n_seen := len(dataset.test) - len(rows):
        print(f"{n_seen} of {len(dataset.test)} test images were labeled in this run and are left out")
    trainer = build_trainer(cfg, inputs)
    logits = trainer.predict(trainer.load(path), "test").logits
    found = evaluate(logits[rows], dataset.labels("test")[rows], build_metrics(cfg.TEST))
    print("  ".join(f"{name} {in_unit(name, value)}" for name, value in found.items() if not isinstance(value, list)))
    for name, values in found.items():
        if isinstance(values, list):
            lines = (f"  {own} {in_unit(name, value)}" for own, value in zip(dataset.classnames, values, strict=True))
            print(name, *lines, sep="\n")


def run(cfg: CfgNode) -> None:
    """Run what the output folder does not hold yet, then print the table and the paths of the files written."""
    ended = job.train(cfg)
    if ended.was_finished:
        by = "" if made_by(ended.result, code_hash(cfg.ACTIVE.PLUGINS)) else " by other code than this"
        print(f"this run is finished{by}; choose more ACTIVE.ROUNDS to go on with it, or another --output-dir or "
              "--overwrite to run it again")
    if ended.fault:
        print(f"the curve is not drawn: {ended.fault}; the same command draws it later", file=sys.stderr)
    print(f"\n{table(ended.result)}\n\nresults: {Path(cfg.OUTPUT_DIR) / RESULTS}"
          + (f"\ncurve:   {ended.curve}" if ended.curve else ""))


def note_in_log(line: str) -> None:
    """Write a last line to `log.txt`, if it exists and can be written: a full log may be what stopped the run."""
    with contextlib.suppress(UserError):
        logger.debug(line)


def print_backbones(word: str) -> None:
    """Print the backbones whose names or tags hold a word."""
    from trainers.clip.listing import backbones

    print(backbones(word))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0; 1 for an error outside the program, 2 for a wrong config; 3 while people have a query to label; 130 for Ctrl-C, 143 for
    SIGTERM.
    """
    try:
        arguments, pairs = job.parser(__doc__).parse(sys.argv[1:] if argv is None else argv)
        if arguments.list_backbones is not None:
            print_backbones(arguments.list_backbones)
            return 0
        cfg = job.build_config(arguments, pairs)
        if arguments.list:
            print_list()
            return 0
        if arguments.print_config:
            print(cfg.dump().rstrip())
            return 0
        job.check(cfg)
        if arguments.overwrite:
            job.check_parts(cfg)
            job.settle(cfg.clone())  # so that it refuses before anything is moved
            move_aside(Path(cfg.OUTPUT_DIR))
        job.settle(cfg)
        if arguments.eval_only or job.finished(cfg) is None:
            job.check_parts(cfg)
        stop_on_sigterm()
        if arguments.eval_only:
            evaluate_only(cfg, Path(arguments.model_dir))
        else:
            run(cfg)
    except UserError as error:
        note_in_log(f"stopped: {error}")
        print(f"train.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        code, by = stopped_by(error)
        note_in_log(f"stopped by {by}")
        again = "the same command without --overwrite" if arguments.overwrite else "the same command"
        print(f"\ntrain.py: stopped by {by}; {again} goes on after the last finished round", file=sys.stderr)
        return code
    return 0


if __name__ == "__main__":
    command("train.py", main)
