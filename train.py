"""Run active prompt learning: parse arguments, set up, run, print the table.

    python train.py --config-file configs/quickstart.yaml
    python train.py --config-file A.yaml B.yaml --root DATA --seed 1 --output-dir output/run OPTIM.MAX_EPOCH 100
    python train.py --list
"""

if __name__ == "__main__":
    from dassl.utils import starting

    starting.begin()

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from yacs.config import CfgNode

import datasets  # noqa: F401  registers the data sets
from active.loop import run
from active.oracles.unasked import asked_once, settle_for_people
from active.pool import query_size
from active.record.certificate import code_hash, config_hash, data_hash
from active.record.folder import (
    RESULTS,
    check_files,
    check_output,
    check_same_config,
    clean,
    is_done,
    made_by,
    move_aside,
    prompts_path,
)
from active.record.recorders import check_tensorboard
from active.record.report import plot_learning_curve, table
from active.record.results import RunResult
from active.registry import SAMPLERS, check_learner
from dassl.config.cli import Pairs, Parser, command
from dassl.config.setup import as_dict, check_config, drop_unused, setup_config
from dassl.data.build import build_dataset, cache_path, check_labeled
from dassl.data.dataset import DATASETS, Dataset, check_dataset_name
from dassl.data.digests import ImageFiles
from dassl.data.feature_bank import bank_key, cache_folder, load_bank
from dassl.data.loader import image_batches
from dassl.data.store import ImageStore
from dassl.data.transforms import check_transforms, preprocessing_for
from dassl.engine.predict import in_batches, predict_some
from dassl.evaluation.evaluate import evaluate
from dassl.optim.lr_scheduler import check_schedule
from dassl.optim.optimizer import check_optimizer
from dassl.utils.errors import ConfigError, UserError
from dassl.utils.events import Terminated, stop_on_sigterm
from dassl.utils.files import lock
from dassl.utils.held import Held
from dassl.utils.logging import setup_logging
from dassl.utils.paths import exists, expanded, is_file, is_folder
from dassl.utils.seeding import drawn_seed, forbid_tf32, use_deterministic_algorithms
from trainers.clip.backbones import check_backbone, load_clip, tower_depths
from trainers.clip.frozen_clip import FrozenCLIP, normalized
from trainers.core.descriptions import check_descriptions
from trainers.core.inputs import Inputs
from trainers.core.trainer import build_inputs, build_selector, build_trainer, check_learners, has_negative_texts
from trainers.registry import LEARNERS, settle_depths

REGISTRIES = (DATASETS, LEARNERS, SAMPLERS)
THREADS = torch.get_num_threads()  # torch's own choice
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
    flags.add_argument("--deterministic", action="store_true", help="runs on a GPU repeat bit for bit too (DETERMINISTIC)")
    flags.add_argument("--print-config", action="store_true", help="print the merged config and exit")
    flags.add_argument("--list", action="store_true", help="print all data sets, trainers and samplers and exit")
    flags.add_argument("--eval-only", action="store_true", help="only evaluate the prompts in --model-dir on the test split, "
                       "under the config of their run where it is recorded beside them")
    flags.add_argument("--model-dir", metavar="PATH", help="a run's output folder (its last round) or one prompts file")
    return flags


def build_config(arguments: argparse.Namespace, pairs: Pairs) -> CfgNode:
    """Return the checked config of the command line; raises ConfigError before anything is loaded."""
    files = [arguments.dataset_config_file] if arguments.dataset_config_file else []
    flags = [(key, value) for key, value in (
        ("DATASET.ROOT", arguments.root), ("SEED", arguments.seed), ("OUTPUT_DIR", arguments.output_dir),
        ("TRAINER.NAME", arguments.trainer), ("DETERMINISTIC", "true" if arguments.deterministic else None))
        if value is not None]
    if arguments.eval_only != (arguments.model_dir is not None):
        raise ConfigError("--eval-only and --model-dir go together")
    if arguments.eval_only and arguments.overwrite:
        raise ConfigError("--eval-only writes nothing, so that there is nothing to --overwrite")
    recorded = None
    if arguments.eval_only and (record := record_of(Path(arguments.model_dir))[0]):
        recorded = {node: keys for node, keys in record.config.items() if node not in ("ACTIVE", "LABEL", "OUTPUT_DIR")}
    return setup_config([*files, *arguments.config_file], [*flags, *pairs], REGISTRIES, recorded=recorded)


def check(cfg: CfgNode) -> None:
    """Raise ConfigError for anything in the config that could not work."""
    check_config(cfg, REGISTRIES)
    check_output(cfg.OUTPUT_DIR)
    check_dataset_name(cfg.DATASET.NAME)
    for name in (cfg.TRAINER.NAME, selecting := cfg.ACTIVE.SELECTOR_TRAINER or cfg.TRAINER.NAME):
        LEARNERS[name]
    check_learner(cfg.ACTIVE, selecting, has_negative_texts=has_negative_texts(selecting))
    query_size(cfg.ACTIVE.QUERY_SIZE, n_train=1, n_classes=1)
    if cfg.LOG.TENSORBOARD:
        check_tensorboard()
    check_transforms(cfg.INPUT)
    check_schedule(cfg.OPTIM)
    check_optimizer(cfg.OPTIM)
    check_descriptions(cfg.TRAINER.DESCRIPTIONS)
    check_backbone(cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PRETRAINED)


def image_files(cfg: CfgNode, held: Held) -> ImageFiles:
    """Return the data set of a run and the state of its files, each looked at once.

    Which images there are, and their labels, are those of the first run of this process on the data set.
    """
    dataset = held.get("dataset", (cfg.DATASET, drawn_by(cfg)), lambda: build_dataset(
        cfg.DATASET, seed=cfg.SEED, n_threads=cfg.DATALOADER.NUM_WORKERS, check_files=False, cache=cache_path(cfg)))
    return asked_once(ImageFiles(dataset, cache_folder(cfg), n_threads=cfg.DATALOADER.NUM_WORKERS), cfg)


def drawn_by(cfg: CfgNode) -> int | None:
    """Return the seed that few shots are drawn with; None where all images are taken."""
    return cfg.SEED if cfg.DATASET.NUM_SHOTS > 0 else None


def set_up(
    cfg: CfgNode, held: Held | None = None, splits: Sequence[str] = ("train", "test"), files: ImageFiles | None = None
) -> tuple[Dataset, Inputs]:
    """Return the data set and what trainers read of it, with the frozen features of some splits.

    What the process holds of earlier runs is made anew if an image of the data set has changed since.
    """
    held = held or Held()
    files = files or image_files(cfg, held)
    dataset = files.dataset
    if "train" in splits and cfg.ACTIVE.ORACLE == "labels":
        check_labeled(dataset)
    torch.set_num_threads(cfg.CPU_THREADS or THREADS)
    use_deterministic_algorithms(cfg.DETERMINISTIC)
    forbid_tf32()
    device = "cuda" if cfg.USE_CUDA and torch.cuda.is_available() else "cpu"
    clip = held.get("clip", (cfg.MODEL, device), lambda: load_clip(
        cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PRETRAINED, device=device, precision=cfg.MODEL.PREC), holders=["inputs"])
    check_learners(cfg, clip, dataset)
    logger.info("%s: %d train, %d val, %d test images of %d classes; %s on %s", dataset.name, len(dataset.train),
                len(dataset.val), len(dataset.test), len(dataset.classnames), clip.name, device)
    n_bytes = cfg.DATALOADER.MEMORY_MB * 2**20
    store = held.get("store", (cfg.DATASET.ROOT, n_bytes), lambda: ImageStore(n_bytes))
    read = (cfg.DATASET, drawn_by(cfg), files.digest(), cfg.MODEL, device, cfg.INPUT, cfg.DATALOADER, cfg.CACHE_DIR, splits)
    inputs = held.get("inputs", read, lambda: build_inputs(cfg, clip, dataset, {
        split: frozen_features(cfg, clip, files, split) for split in splits if dataset.split(split)}, store))
    return dataset, inputs.with_seed(cfg.SEED)


def frozen_features(cfg: CfgNode, clip: FrozenCLIP, files: ImageFiles, split: str) -> torch.Tensor:
    """Return the frozen tower's unit-norm features of a split, from the cache where it has them."""
    preprocessing, paths = preprocessing_for(cfg.INPUT, clip.preprocessing), files.dataset.files(split)
    size = cfg.DATALOADER.TEST.BATCH_SIZE

    def extract(rows: Sequence[int]) -> Iterator[torch.Tensor]:
        wanted = in_batches(rows, size)
        images = image_batches([paths[row] for row in rows], preprocessing.transform(), batch_size=[len(own) for own in wanted],
                               n_workers=cfg.DATALOADER.NUM_WORKERS)
        return predict_some(images, lambda batch: normalized(clip.encode_image(batch)), wanted, batch_size=size,
                            n_rows=len(paths), description=f"features of {files.dataset.name} {split}")

    contents = files.contents(split)
    key = bank_key(clip.fingerprint, preprocessing, contents, cfg.MODEL.PREC, clip.device.type)
    return load_bank(cache_folder(cfg), key, contents, extract).features


def certificate(cfg: CfgNode, files: ImageFiles, weights: str) -> dict[str, str]:
    """Return the hashes of all that a run's numbers follow from; `weights` is that of the backbone."""
    texts = [expanded(cfg.TRAINER.DESCRIPTIONS.FILE)] if cfg.TRAINER.DESCRIPTIONS.FILE else []
    return {"config": config_hash(as_dict(cfg)), "code": code_hash(cfg.ACTIVE.PLUGINS), "weights": weights,
            "data": data_hash(files, texts)}


def record_of(model_dir: Path) -> tuple[RunResult | None, Path]:
    """Return the record of a run by its folder, or by one of its prompts files, and the file of prompts that is meant.

    A prompts file that lies alone has no record; of a folder, the last round's prompts are meant.
    """
    folder = model_dir if (is_run := is_folder(model_dir)) else model_dir.absolute().parent.parent
    if not is_run and not is_file(folder / RESULTS):
        return None, model_dir
    record = RunResult.read(folder / RESULTS)
    if not is_run:
        return record, model_dir
    if not record.rounds:
        raise UserError(f"{model_dir} holds a run that has not finished its first round")
    check_files(record.rounds[-1:], model_dir)
    return record, prompts_path(model_dir, len(record.rounds) - 1)


def evaluate_only(cfg: CfgNode, model_dir: Path) -> None:
    """Print the test metrics of stored prompts, without the test images that the run was trained on."""
    record, path = record_of(model_dir)
    dataset, inputs = set_up(cfg, splits=("test",))
    seen = {name for round in record.rounds for name in (*round.queried, *round.pseudo_labeled)} if record else set()
    rows = torch.tensor([row for row, datum in enumerate(dataset.test) if datum.path not in seen], dtype=torch.int64)
    if not len(rows):
        raise UserError(f"{dataset.name} has no test images to evaluate on" + (" beside those of the run" if seen else ""))
    if n_seen := len(dataset.test) - len(rows):
        print(f"{n_seen} of {len(dataset.test)} test images were labeled in this run and are left out")
    trainer = build_trainer(cfg, inputs)
    logits = trainer.predict(trainer.load(path), "test").logits
    print("  ".join(f"{name} {100 * value:.2f} %" for name, value in evaluate(logits[rows], dataset.labels("test")[rows])))


def train(cfg: CfgNode, held: Held | None = None, *, wait: bool = False) -> None:
    """Run what the output folder does not hold yet, then print its table and the paths of what was written.

    Another process at work in the folder is an error, or, with `wait`, waited for.
    """
    output = Path(cfg.OUTPUT_DIR)
    results, curve = output / RESULTS, output / "learning_curve.png"
    with lock(output / ".lock", wait=wait):
        result = RunResult.read(results) if exists(results) else None
        if result:
            check_same_config(result, as_dict(cfg), results)
        clean(output)
        if result and is_done(result, as_dict(cfg)):
            check_files(result.rounds, output)
            by = "" if made_by(result, code_hash(cfg.ACTIVE.PLUGINS)) else " by other code than this"
            print(f"this run is finished{by}; choose another --output-dir or --overwrite to run it again\n\n{table(result)}\n")
        else:
            setup_logging(output)
            if cfg.VERBOSE:
                logger.debug("config:\n%s", cfg.dump())
            files = image_files(cfg, held := held or Held())
            dataset, inputs = set_up(cfg, held, files=files)
            result = run(cfg, dataset, build_trainer(cfg, inputs), build_selector(cfg, inputs),
                         certificate=certificate(cfg, files, inputs.clip.fingerprint))
            print(f"\n{table(result)}\n")
        drawn = draw_curve(result, results, curve)
    print(f"results: {results}" + (f"\ncurve:   {curve}" if drawn else ""))


def draw_curve(result: RunResult, results: Path, curve: Path) -> bool:
    """Draw the learning curve unless the one that is there is newer than the record; return whether there is one.

    A run without test images has none. Where it cannot be written, the run is finished all the same, and this command draws it
    the next time.
    """
    if not result.dataset["n_test"]:
        return False
    if not exists(curve) or curve.stat().st_mtime < results.stat().st_mtime:
        try:
            plot_learning_curve(result, curve)
        except UserError as error:
            print(f"the curve is not drawn: {error}; the same command draws it later", file=sys.stderr)
            return False
    return True


def settle_seed(cfg: CfgNode) -> None:
    """Replace SEED -1 by the seed that the output folder's run drew, or by a new one."""
    results = Path(cfg.OUTPUT_DIR) / RESULTS
    if cfg.SEED == -1:
        cfg.SEED = RunResult.read(results).config["SEED"] if exists(results) else drawn_seed()


def settle(cfg: CfgNode) -> None:
    """Settle seed and depths and freeze a checked config, with the nodes of the components that it uses alone."""
    settle_seed(cfg)
    begun = None
    if cfg.ACTIVE.ORACLE == "file":
        with contextlib.suppress(UserError):  # the run itself says what is wrong with a record
            begun = RunResult.read(Path(cfg.OUTPUT_DIR) / RESULTS).config
    settle_for_people(cfg, begun)
    drop_unused(cfg, REGISTRIES, always=("ZeroShot",))
    settle_depths(cfg.TRAINER, tower_depths(cfg.MODEL.BACKBONE.NAME))
    cfg.freeze()


def print_list() -> None:
    """Print every registered component with its YAML keys and defaults."""
    for registry in REGISTRIES:
        print(f"{registry.kind}s ({registry.node}):")
        for component in registry:
            node = f"{registry.node}.{component.key}"
            keys = "  ".join(f"{parameter.key}={parameter.default!r}" for parameter in component.parameters)
            print(f"  {component.name:<16} {f'{node}: {keys}' if keys else ''}".rstrip())


def note_in_log(line: str) -> None:
    """Write a last line to `log.txt`, if there is one and it finds room: the log may be what the run has stopped for."""
    with contextlib.suppress(UserError):
        logger.debug(line)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0; 1 for what is wrong outside, 2 for a wrong config; 3 while people have a query to label; 130 for Ctrl-C, 143 for SIGTERM.
    """
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
        settle(cfg)
        stop_on_sigterm()
        if arguments.eval_only:
            evaluate_only(cfg, Path(arguments.model_dir))
        else:
            train(cfg)
    except UserError as error:
        note_in_log(f"stopped: {error}")
        print(f"train.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        code, by = (143, "SIGTERM") if isinstance(error, Terminated) else (130, "Ctrl-C")
        note_in_log(f"stopped by {by}")
        again = "the same command without --overwrite" if arguments.overwrite else "the same command"
        print(f"\ntrain.py: stopped by {by}; {again} goes on after the last finished round", file=sys.stderr)
        return code
    return 0


if __name__ == "__main__":
    command("train.py", main)
