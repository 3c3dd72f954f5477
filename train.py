"""Run active prompt learning: parse arguments, set up, run, print the table.

    python train.py --config-file configs/quickstart.yaml
    python train.py --config-file A.yaml B.yaml --root DATA --seed 1 --output-dir output/run OPTIM.MAX_EPOCH 100
    python train.py --list
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch
from yacs.config import CfgNode

import datasets  # noqa: F401  registers the data sets
from active.features import bank_key, load_bank
from active.loop import RESULTS, check_same_config, prompts_path, query_size, run
from active.registry import SAMPLERS, check_learner
from active.report import plot_learning_curve, table
from active.results import RunResult
from dassl.config.cli import Pairs, Parser
from dassl.config.setup import as_dict, check_config, drop_unused, setup_config
from dassl.data.build import build_dataset, check_labeled
from dassl.data.dataset import DATASETS, Dataset, check_dataset_name
from dassl.data.loader import image_batches
from dassl.data.store import ImageStore
from dassl.data.transforms import check_transforms, preprocessing_for
from dassl.engine.predict import predict
from dassl.evaluation.evaluate import evaluate
from dassl.optim.lr_scheduler import check_schedule
from dassl.optim.optimizer import check_optimizer
from dassl.utils.errors import ConfigError, UserError
from dassl.utils.files import lock
from dassl.utils.logging import setup_logging
from dassl.utils.seeding import drawn_seed
from trainers.backbones import check_backbone, load_clip
from trainers.descriptions import check_descriptions
from trainers.frozen_clip import FrozenCLIP, normalized
from trainers.inputs import Inputs
from trainers.prompt_trainer import build_inputs, build_selector, build_trainer, check_learners, has_negative_texts
from trainers.prompts import TRAINERS

REGISTRIES = (DATASETS, TRAINERS, SAMPLERS)
logger = logging.getLogger(__name__)


def parser() -> Parser:
    """Return the command line's parser."""
    flags = Parser(prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                   epilog="KEY VALUE pairs, such as ACTIVE.SAMPLER entropy, may stand anywhere and win over files and flags.")
    flags.add_argument("--config-file", nargs="+", action="extend", default=[], metavar="YAML", help="merged left to right")
    flags.add_argument("--dataset-config-file", metavar="YAML", help="merged before --config-file")
    flags.add_argument("--root", metavar="DIR", help="folder that holds the data sets (DATASET.ROOT)")
    flags.add_argument("--seed", metavar="N", help="0 is a seed; -1 draws one (SEED)")
    flags.add_argument("--output-dir", metavar="DIR", help="where results.json goes (OUTPUT_DIR)")
    flags.add_argument("--trainer", metavar="NAME", help="prompt learner (TRAINER.NAME)")
    flags.add_argument("--overwrite", action="store_true", help="move what the output folder holds aside")
    flags.add_argument("--print-config", action="store_true", help="print the merged config and exit")
    flags.add_argument("--list", action="store_true", help="print all data sets, trainers and samplers and exit")
    flags.add_argument("--eval-only", action="store_true", help="only evaluate the prompts in --model-dir on the test split")
    flags.add_argument("--model-dir", metavar="PATH", help="a run's output folder (its last round) or one prompts file")
    return flags


def build_config(arguments: argparse.Namespace, pairs: Pairs) -> CfgNode:
    """Return the checked config of the command line; raises ConfigError before anything is loaded."""
    files = [arguments.dataset_config_file] if arguments.dataset_config_file else []
    flags = [(key, value) for key, value in (
        ("DATASET.ROOT", arguments.root), ("SEED", arguments.seed), ("OUTPUT_DIR", arguments.output_dir),
        ("TRAINER.NAME", arguments.trainer)) if value is not None]
    if arguments.eval_only != (arguments.model_dir is not None):
        raise ConfigError("--eval-only and --model-dir go together")
    return setup_config([*files, *arguments.config_file], [*flags, *pairs], REGISTRIES)


def check(cfg: CfgNode) -> None:
    """Raise ConfigError for anything in the config that could not work."""
    check_config(cfg, REGISTRIES)
    check_dataset_name(cfg.DATASET.NAME)
    for name in (cfg.TRAINER.NAME, selecting := cfg.ACTIVE.SELECTOR_TRAINER or cfg.TRAINER.NAME):
        TRAINERS[name]
    check_learner(cfg.ACTIVE, selecting, has_negative_texts=has_negative_texts(selecting))
    query_size(cfg.ACTIVE.QUERY_SIZE, n_train=1, n_classes=1)
    check_transforms(cfg.INPUT)
    check_schedule(cfg.OPTIM)
    check_optimizer(cfg.OPTIM)
    check_descriptions(cfg.TRAINER.DESCRIPTIONS)
    check_backbone(cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PRETRAINED)


def set_up(cfg: CfgNode) -> tuple[Dataset, Inputs]:
    """Return the data set and what trainers read of it, with the frozen features of train and test split."""
    if cfg.CPU_THREADS:
        torch.set_num_threads(cfg.CPU_THREADS)
    device = "cuda" if cfg.USE_CUDA and torch.cuda.is_available() else "cpu"
    dataset = build_dataset(cfg.DATASET, seed=cfg.SEED, n_threads=cfg.DATALOADER.NUM_WORKERS)
    check_labeled(dataset)
    clip = load_clip(cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PRETRAINED, device=device, precision=cfg.MODEL.PREC)
    check_learners(cfg, clip, dataset)
    logger.info("%s: %d train, %d val, %d test images of %d classes; %s on %s", dataset.name, len(dataset.train),
                len(dataset.val), len(dataset.test), len(dataset.classnames), clip.name, device)
    features = {split: frozen_features(cfg, clip, dataset, split) for split in ("train", "test")}
    return dataset, build_inputs(cfg, clip, dataset, features, ImageStore(cfg.DATALOADER.MEMORY_MB * 2**20))


def frozen_features(cfg: CfgNode, clip: FrozenCLIP, dataset: Dataset, split: str) -> torch.Tensor:
    """Return the frozen tower's unit-norm features of a split, from the cache where it has them."""
    preprocessing = preprocessing_for(cfg.INPUT, clip.preprocessing)

    def extract() -> torch.Tensor:
        batches = image_batches(dataset.files(split), preprocessing.transform(), n_workers=cfg.DATALOADER.NUM_WORKERS,
                                batch_size=cfg.DATALOADER.TEST.BATCH_SIZE)
        return predict(batches, lambda images: normalized(clip.encode_image(images)), n_rows=len(dataset.split(split)),
                       description=f"features of {dataset.name} {split}")

    folder = Path(cfg.CACHE_DIR or Path(cfg.DATASET.ROOT) / ".cache").expanduser()
    return load_bank(folder, bank_key(clip.fingerprint, preprocessing, dataset, split, cfg.MODEL.PREC), extract).features


def evaluate_only(cfg: CfgNode, model_dir: Path) -> None:
    """Print the test metrics of stored prompts."""
    path = model_dir
    if model_dir.is_dir():
        path = prompts_path(model_dir, len(RunResult.read(model_dir / RESULTS).rounds) - 1)
    dataset, inputs = set_up(cfg)
    trainer = build_trainer(cfg, inputs)
    logits = trainer.predict(trainer.load(path), "test").logits
    print("  ".join(f"{name} {100 * value:.2f} %" for name, value in evaluate(logits, dataset.labels("test"))))


def train(cfg: CfgNode) -> None:
    """Run what the output folder does not hold yet, then print its table and the paths of what was written."""
    output = Path(cfg.OUTPUT_DIR)
    results, curve = output / RESULTS, output / "learning_curve.png"
    with lock(output / ".lock", wait=False):
        result = RunResult.read(results) if results.exists() else None
        if result:
            check_same_config(result, as_dict(cfg), results)
        if result and result.finished:
            print(f"this run is finished; choose another --output-dir or --overwrite to run it again\n\n{table(result)}\n")
        else:
            setup_logging(output)
            if cfg.VERBOSE:
                logger.debug("config:\n%s", cfg.dump())
            dataset, inputs = set_up(cfg)
            result = run(cfg, dataset, build_trainer(cfg, inputs), build_selector(cfg, inputs))
            print(f"\n{table(result)}\n")
        if not curve.exists() or curve.stat().st_mtime < results.stat().st_mtime:
            plot_learning_curve(result, curve)
    print(f"results: {results}\ncurve:   {curve}")


def settle_seed(cfg: CfgNode) -> None:
    """Replace SEED -1 by the seed that the output folder's run drew, or by a new one."""
    results = Path(cfg.OUTPUT_DIR) / RESULTS
    if cfg.SEED == -1:
        cfg.SEED = RunResult.read(results).config["SEED"] if results.exists() else drawn_seed()


def move_aside(output: Path) -> None:
    """Rename an output folder to one that says when it was replaced."""
    if output.exists():
        output.rename(output.with_name(f"{output.name}.{datetime.now():%Y%m%d-%H%M%S-%f}"))


def print_list() -> None:
    """Print every registered component with its YAML keys and defaults."""
    for registry in REGISTRIES:
        print(f"{registry.kind}s ({registry.node}):")
        for component in registry:
            node = f"{registry.node}.{component.key}"
            keys = "  ".join(f"{parameter.key}={parameter.default!r}" for parameter in component.parameters)
            print(f"  {component.name:<16} {f'{node}: {keys}' if keys else ''}".rstrip())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for a wrong config, 1 for what is wrong outside, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a class name that the terminal cannot show is no reason to stop
    try:
        arguments, pairs = parser().parse(sys.argv[1:] if argv is None else argv)
        cfg = build_config(arguments, pairs)
        if arguments.list:
            print_list()
            return 0
        if arguments.print_config:
            print(cfg.dump().rstrip())
            return 0
        check(cfg)
        if arguments.overwrite:
            move_aside(Path(cfg.OUTPUT_DIR))
        settle_seed(cfg)
        drop_unused(cfg, REGISTRIES, always=("ZeroShot",))
        cfg.freeze()
        if arguments.eval_only:
            evaluate_only(cfg, Path(arguments.model_dir))
        else:
            train(cfg)
    except UserError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ntrain.py: stopped; the same command goes on after the last finished round", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
