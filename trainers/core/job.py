"""A run by the words of a command: its config, the checks before anything is loaded, and the run itself.

`train.py` and the cells of a sweep share it. It imports no torch: a wrong key, or a run that is finished, is said at once.
"""

import argparse
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yacs.config import CfgNode

from active.oracles.registry import ORACLES, asks_people
from active.oracles.unasked import asked_once, settle_for_people
from active.record.certificate import code_hash, config_hash
from active.record.folder import check_files, check_output, check_same_config, clean, is_done, linear_used, prompts_path
from active.record.recorders import RECORDERS, check_recorders
from active.record.report import has_curve, plot_learning_curve
from active.record.results import RoundRecord, RunResult
from active.registry import SAMPLERS, audit_size, check_learner, query_size
from dassl.config.cli import Pairs, Parser
from dassl.config.setup import as_dict, cache_path, check_config, drop_unused, setup_config
from dassl.data.dataset import DATASETS, check_dataset_name
from dassl.evaluation.metrics import METRICS, check_metrics
from dassl.utils.errors import ConfigError, UserError
from dassl.utils.files import lock
from dassl.utils.held import Held
from dassl.utils.logging import setup_logging
from dassl.utils.paths import exists, expanded, is_file, is_folder
from dassl.utils.run_folder import CURVE, LOCK, RESULTS
from dassl.utils.seeding import drawn_seed
from trainers.clip.architectures import tower_depths
from trainers.registry import LEARNERS, TRAINERS, absent, has_negative_texts, is_linear, settle_depths

if TYPE_CHECKING:
    from dassl.data.digests import ImageFiles
    from trainers.core.inputs import Inputs

REGISTRIES = (DATASETS, LEARNERS, TRAINERS, SAMPLERS, ORACLES, RECORDERS, METRICS)
logger = logging.getLogger(__name__)


def parser(description: str = "") -> Parser:
    """Return the parser of `train.py`'s command line."""
    flags = Parser(prog="train.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                   epilog="KEY VALUE pairs, such as ACTIVE.SAMPLER entropy, may stand anywhere and win over files and flags.")
    flags.add_argument("--config-file", nargs="+", action="extend", default=[], metavar="YAML", help="merged left to right")
    flags.add_argument("--dataset-config-file", metavar="YAML", help="merged before --config-file")
    flags.add_argument("--root", metavar="DIR", help="folder that holds the data sets (DATASET.ROOT)")
    flags.add_argument("--seed", metavar="N", help="0 is a seed; -1 draws one (SEED)")
    flags.add_argument("--output-dir", metavar="DIR", help="where results.json goes (OUTPUT_DIR)")
    flags.add_argument("--trainer", metavar="NAME", help="learner (TRAINER.NAME)")
    flags.add_argument("--overwrite", action="store_true", help="move what the output folder holds aside")
    flags.add_argument("--deterministic", action="store_true", help="runs on a GPU repeat bit for bit too (DETERMINISTIC)")
    flags.add_argument("--print-config", action="store_true", help="print the merged config and exit")
    flags.add_argument("--list", action="store_true", help="print everything that can be named in a config and exit")
    flags.add_argument("--list-backbones", nargs="?", const="", metavar="WORD", help="print the backbones with WORD in their "
                       "name or a tag, or all, and which weights are on this disk, and exit")
    flags.add_argument("--eval-only", action="store_true", help="only evaluate the prompts in --model-dir on the test split, "
                       "under the config of their run where it is recorded beside them")
    flags.add_argument("--model-dir", metavar="PATH", help="a run's output folder (its last round) or one prompts file")
    return flags


def build_config(arguments: argparse.Namespace, pairs: Pairs) -> CfgNode:
    """Return the config of the command line, not checked yet; raises ConfigError before anything is loaded."""
    files = [arguments.dataset_config_file] if arguments.dataset_config_file else []
    flags = [(key, value) for key, value in (
        ("DATASET.ROOT", arguments.root), ("SEED", arguments.seed), ("OUTPUT_DIR", arguments.output_dir),
        ("TRAINER.NAME", arguments.trainer), ("DETERMINISTIC", "true" if arguments.deterministic else None))
        if value is not None]
    if arguments.eval_only != (arguments.model_dir is not None):
        raise ConfigError("--eval-only and --model-dir go together")
    if arguments.eval_only and arguments.overwrite:
        raise ConfigError("--eval-only writes nothing, so that there is nothing to --overwrite")
    record = record_of(Path(arguments.model_dir))[0] if arguments.eval_only else None
    try:
        return setup_config([*files, *arguments.config_file], [*flags, *pairs], REGISTRIES,
                            recorded=_of_model(record) if record else None)
    except ConfigError as error:
        raise _with_plugins(error, record, pairs) from None


def check(cfg: CfgNode) -> None:
    """Raise ConfigError for anything in the config that could not work, as far as names and numbers tell."""
    check_config(cfg, REGISTRIES)
    check_output(cfg.OUTPUT_DIR)
    check_dataset_name(cfg.DATASET.NAME)
    ORACLES[cfg.ACTIVE.ORACLE].facts.get("check", lambda: None)()
    for name in (cfg.TRAINER.NAME, selecting := cfg.ACTIVE.SELECTOR_TRAINER or cfg.TRAINER.NAME):
        has_negative_texts(name)
    check_learner(cfg.ACTIVE, selecting, has_negative_texts=has_negative_texts(selecting), is_linear=is_linear(selecting))
    query_size(cfg.ACTIVE.QUERY_SIZE, n_train=1, n_classes=1)
    audit_size(cfg.ACTIVE.AUDIT, n_train=1)
    check_metrics(cfg.TEST)
    if taken := {field.name for field in fields(RoundRecord)} & set(cfg.TEST.METRICS):
        raise ConfigError(f"TEST.METRICS names {', '.join(sorted(taken))}, which a round's record calls something else")
    check_recorders(cfg.LOG)


def check_parts(cfg: CfgNode) -> None:
    """Raise ConfigError for anything else in the config that could not work; this takes the libraries that do the work."""
    from active.devices import check_device
    from dassl.data.transforms import check_transforms
    from dassl.optim.lr_scheduler import check_schedule
    from dassl.optim.optimizer import check_optimizer
    from trainers.clip.backbones import check_backbone
    from trainers.core.build import check_image_tower
    from trainers.core.descriptions import check_descriptions

    check_device(cfg)
    check_transforms(cfg.INPUT)
    check_schedule(cfg.OPTIM)
    check_optimizer(cfg.OPTIM)
    check_descriptions(cfg.TRAINER.DESCRIPTIONS)
    check_backbone(cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PRETRAINED, cfg.MODEL.BACKBONE.TOKENIZER)
    check_image_tower(cfg)


def settle(cfg: CfgNode) -> None:
    """Settle seed, depths and what else is left open, and freeze a checked config, with the nodes of what it uses alone."""
    results, begun = Path(cfg.OUTPUT_DIR) / RESULTS, None
    if cfg.SEED == -1:
        cfg.SEED = RunResult.read(results).config["SEED"] if exists(results) else drawn_seed()
    if asks_people(cfg.ACTIVE):
        with contextlib.suppress(UserError):  # the run itself says what is wrong with a record
            begun = RunResult.read(results).config
    settle_for_people(cfg, begun)
    drop_unused(cfg, REGISTRIES, always=("ZeroShot",))
    cfg.TRAINER.ABSENT = absent(cfg.TRAINER.ABSENT, cfg.TRAINER.NAME)
    selecting, optim = cfg.ACTIVE.SELECTOR_TRAINER, cfg.ACTIVE.SELECTOR_OPTIM
    optim.ABSENT = absent(optim.ABSENT, selecting) if selecting else "pushed"  # which changes nothing, and is what records mean
    settle_depths(cfg.TRAINER, tower_depths(cfg.MODEL.BACKBONE.NAME))
    cfg.freeze()


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


@dataclass(frozen=True)
class Use:
    """A run whose model is used: its output folder, its record, the file of the model, and the config to use it with."""

    folder: Path
    record: RunResult
    model: Path
    cfg: CfgNode


def use_of(run: str | Path, pairs: Sequence[tuple[str, str]] = ()) -> Use:
    """Return a run, named as in `record_of`, for use; KEY VALUE pairs win over its recorded config.

    Plug-ins that the record names are imported only if pairs name them in ACTIVE.PLUGINS, as they may be anybody's code. Of the
    nodes ACTIVE, LABEL, LOG and TEST nothing else is taken but who labels.
    """
    place = expanded(run)
    record, model = record_of(place) if is_file(place) or is_file(place / RESULTS) else (None, place)
    if record is None:
        raise UserError(f"{place} is neither the output folder of a run nor a file of its prompts")
    folder = place.absolute() if is_folder(place) else model.absolute().parent.parent
    asked = [("ACTIVE.ORACLE", name) for name in [record.config["ACTIVE"].get("ORACLE", "")] if name in ORACLES]
    try:
        cfg = setup_config([], [("OUTPUT_DIR", str(folder)), *asked, *pairs], REGISTRIES, recorded=_of_model(record))
        check(cfg)
        settle(cfg)
        check_parts(cfg)
    except ConfigError as error:
        raise _with_plugins(error, record, pairs, ", on a command line behind --set") from None
    return Use(folder, record, model, cfg)


def _with_plugins(
    error: ConfigError, record: RunResult | None, pairs: Sequence[tuple[str, str]], where: str = ""
) -> ConfigError:
    """Return the error, which the plug-ins that a record names may solve."""
    plugins = record.config["ACTIVE"].get("PLUGINS") if record else None
    if not plugins or "ACTIVE.PLUGINS" in dict(pairs):
        return error
    return ConfigError(f"{error}; the record names plug-ins, which are code: look at them, and name them again: "
                       f"ACTIVE.PLUGINS \"{plugins}\"{where}")


def _of_model(record: RunResult) -> dict[str, Any]:
    """Return what a model needs of a recorded config; the plug-ins that other nodes name may be anybody's code."""
    left_out = ("ACTIVE", "LABEL", "LOG", "TEST", "OUTPUT_DIR")
    return {node: keys for node, keys in record.config.items() if node not in left_out}


@dataclass(frozen=True)
class Ended:
    """A run that is at its end: its record, whether it was finished before, and its learning curve.

    A run without test images has none; nor has one whose curve cannot be written, for the reason `fault`.
    """

    result: RunResult
    was_finished: bool
    curve: Path | None = None
    fault: str = ""


def finished(cfg: CfgNode) -> RunResult | None:
    """Return the record of a settled config if its output folder holds the run, finished and whole; else None.

    Raises UserError if the folder holds another run.
    """
    results = Path(cfg.OUTPUT_DIR) / RESULTS
    if not exists(results):
        return None
    result, config = RunResult.read(results), as_dict(cfg)
    check_same_config(result, config, results)
    if not is_done(result, config):
        return None
    check_files(result.rounds, results.parent)
    return result


def train(cfg: CfgNode, held: Held | None = None, *, wait: bool = False, is_cell: bool = False) -> Ended:
    """Do what the output folder does not hold yet of the run of a settled config, and draw its curve if `LOG.CURVE` says so.

    A run of a sweep `is_cell`. Another process at work in the folder is an error, or, with `wait`, waited for.
    """
    output = Path(cfg.OUTPUT_DIR)
    with lock(output / LOCK, wait=wait):
        result = finished(cfg)
        clean(output)
        if not (was_finished := result is not None):
            setup_logging(output)
            if cfg.VERBOSE:
                logger.debug("config:\n%s", cfg.dump())
            result = _carried_out(cfg, held or Held())
        if cfg.LOG.CURVE == "never" or (is_cell and cfg.LOG.CURVE == "single"):
            return Ended(result, was_finished)
        try:
            return Ended(result, was_finished, curve=draw_curve(result, output))
        except UserError as error:
            return Ended(result, was_finished, fault=str(error))


def image_files(cfg: CfgNode, held: Held) -> "ImageFiles":
    """Return the data set of a run and the state of its files, each looked at once.

    The list of images and their labels is read once a process, for its first run on the data set.
    """
    from dassl.data.build import build_dataset
    from dassl.data.digests import ImageFiles
    from dassl.data.feature_bank import writable
    from trainers.core.build import drawn_by

    dataset = held.get("dataset", (cfg.DATASET, drawn_by(cfg)), lambda: build_dataset(
        cfg.DATASET, seed=cfg.SEED, n_threads=cfg.DATALOADER.NUM_WORKERS, check_files=False, cache=cache_path(cfg)))
    return asked_once(ImageFiles(dataset, writable(cache_path(cfg)), n_threads=cfg.DATALOADER.NUM_WORKERS), cfg)


def certificate(cfg: CfgNode, files: "ImageFiles", weights: str) -> Mapping[str, str]:
    """Return the hashes of all that a run's numbers follow from; `weights` is that of the backbone."""
    from dassl.data.digests import data_hash

    texts = [expanded(cfg.TRAINER.DESCRIPTIONS.FILE)] if cfg.TRAINER.DESCRIPTIONS.FILE else []
    return {"config": config_hash(as_dict(cfg)), "code": code_hash(cfg.ACTIVE.PLUGINS), "weights": weights,
            "data": data_hash(files, texts)}


def draw_curve(result: RunResult, output: Path) -> Path | None:
    """Draw the learning curve unless the one that is there is newer than the record, and return its file, None for no curve."""
    curve, results = output / CURVE, output / RESULTS
    if not has_curve(result):
        return None
    if not exists(curve) or curve.stat().st_mtime < results.stat().st_mtime:
        plot_learning_curve(result, curve)
    return curve


def prepared(cfg: CfgNode, held: Held, splits: Sequence[str] = ("train", "test")) -> tuple["ImageFiles", "Inputs"]:
    """Return the data set of a run by its files, and what trainers read of it: CLIP, and the frozen features of some splits."""
    from dassl.data.build import check_labeled
    from trainers.core.build import set_up

    files = image_files(cfg, held)
    if "train" in splits and not asks_people(cfg.ACTIVE):
        check_labeled(files.dataset)
    return files, set_up(cfg, held, files, splits)


def _carried_out(cfg: CfgNode, held: Held) -> RunResult:
    from active.build import carry_out
    from dassl.data.loader import worker_deaths_named
    from dassl.utils.cards import full_card_named
    from dassl.utils.large import large_files_in
    from trainers.core.build import build_selector, build_trainer

    with worker_deaths_named(), full_card_named(), large_files_in(Path(cfg.OUTPUT_DIR)):
        files, inputs = prepared(_continued(cfg), held)
        linear = {"linear": inputs.clip.linear} if inputs.clip.linear != "torch" else {}
        return carry_out(cfg, files.dataset, build_trainer(cfg, inputs), build_selector(cfg, inputs),
                         certificate={**certificate(cfg, files, inputs.clip.fingerprint), **linear})


def _continued(cfg: CfgNode) -> CfgNode:
    """Return the config with the product of linear layers that its record was begun with, if it has one and leaves it open."""
    from dassl.utils.linear import TORCH, is_exact

    results = Path(cfg.OUTPUT_DIR) / RESULTS
    if cfg.MODEL.LINEAR != "auto" or not exists(results):
        return cfg
    linear, own = linear_used(RunResult.read(results).environment), cfg.clone()
    own.defrost()
    own.MODEL.LINEAR = linear if linear == TORCH or is_exact() else "auto"  # of another machine; the record will name both
    own.freeze()
    return own
