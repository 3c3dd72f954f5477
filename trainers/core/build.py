"""From a config to CLIP, its frozen features, and the trainers of a run."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from yacs.config import CfgNode

from dassl.config.setup import cache_path
from dassl.data.build import load_dataset
from dassl.data.dataset import Dataset
from dassl.data.digests import Contents, ImageFiles
from dassl.data.feature_bank import Source, bank_key, kept_as, load_bank, stored_features, writable
from dassl.data.feature_blocks import Key
from dassl.data.loader import pixel_batches
from dassl.data.store import ImageStore
from dassl.data.transforms import build_augmentation, build_preprocessing
from dassl.data.view_bank import ViewBank
from dassl.engine.predict import in_batches, predict_some
from dassl.optim.lr_scheduler import build_scheduler
from dassl.optim.optimizer import build_optimizer
from dassl.utils.environment import rounding_of_card
from dassl.utils.errors import ConfigError, UserError
from dassl.utils.held import Held
from dassl.utils.linear import ONEDNN, TORCH, linear_product
from dassl.utils.seeding import rng_for, use_deterministic_algorithms, use_tf32
from trainers.clip.architectures import tower_depths
from trainers.clip.backbones import load_clip, takes_image_prompts
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.checks import check_calibrated, check_texts_differ
from trainers.core.descriptions import build_texts
from trainers.core.inputs import Banks, Inputs, Loading, Reads, pixel_encoder
from trainers.core.model_file import read_model
from trainers.core.prompted_clip import PromptedCLIP
from trainers.core.prompts import ClassTexts
from trainers.core.recipe import BuildLearner, Recipe, Setting
from trainers.core.token_rows import word_ids
from trainers.core.trainer import PromptTrainer
from trainers.registry import LEARNERS, TRAINERS, absent, is_learner, keeps_order, read_by, tunes_images

THREADS = torch.get_num_threads()  # torch's own choice
# parts of the key of features; views are kept for single images, and in float32
NOT_OF_VIEWS = ("split", "files", "files_by", "resize", "fill", "features")
logger = logging.getLogger(__name__)


def set_up(cfg: CfgNode, held: Held, files: ImageFiles, splits: Sequence[str] = ("train", "test")) -> Inputs:
    """Return what trainers read of a data set, with the frozen features of some splits.

    Cached objects of earlier runs are rebuilt when an image file has changed.
    """
    dataset, clip = files.dataset, build_clip(cfg, held)
    device = clip.device.type
    check_learners(cfg, clip, dataset)
    logger.info("%s: %d train, %d val, %d test images of %d classes; %s on %s", dataset.name, len(dataset.train),
                len(dataset.val), len(dataset.test), len(dataset.classnames), clip.name, device)
    n_bytes = cfg.DATALOADER.MEMORY_MB * 2**20
    store = held.get("store", (cfg.DATASET.ROOT, n_bytes), lambda: ImageStore(n_bytes))
    kinds = kinds_read(cfg)
    read = (cfg.DATASET, drawn_by(cfg), files.digest(), cfg.MODEL, device, cfg.INPUT, cfg.DATALOADER, cfg.CACHE_DIR, splits,
            kinds)
    present = [split for split in splits if dataset.split(split)]
    inputs = held.get("inputs", read, lambda: build_inputs(cfg, clip, dataset, {
        kind: {split: frozen_features(cfg, clip, files, split, kind) for split in present} for kind in kinds}, store,
        files if "train" in present else None))
    return inputs.with_seed(cfg.SEED)


def build_clip(cfg: CfgNode, held: Held) -> FrozenCLIP:
    """Return the CLIP of a config, and set how torch computes in this process: threads, determinism, precision."""
    torch.set_num_threads(cfg.CPU_THREADS or THREADS)
    use_deterministic_algorithms(cfg.DETERMINISTIC)
    use_tf32(cfg.MODEL.TF32)
    device = "cuda" if cfg.USE_CUDA and torch.cuda.is_available() else "cpu"
    return held.get("clip", (cfg.MODEL, device), lambda: _loaded(cfg, device), holders=["inputs"])


def _loaded(cfg: CfgNode, device: str) -> FrozenCLIP:
    node = cfg.MODEL.BACKBONE
    clip = load_clip(node.NAME, node.PRETRAINED, node.TOKENIZER, device=device, precision=cfg.MODEL.PREC)
    if device == "cpu" and cfg.MODEL.PREC == "fp32" and linear_product(cfg.MODEL.LINEAR, clip.text_width) == ONEDNN:
        clip.use_onednn()
    return clip


def drawn_by(cfg: CfgNode) -> int | None:
    """Return the seed that few shots are drawn by; None where all images are taken."""
    return cfg.SEED if cfg.DATASET.NUM_SHOTS > 0 else None


def kinds_read(cfg: CfgNode) -> tuple[Reads, ...]:
    """Return what a run reads of the frozen tower: unit-norm features always, and what else its learners ask for."""
    return tuple(kind for kind in dict.fromkeys(("features", *map(read_by, _learners(cfg)))) if kind != "tokens")


def check_image_tower(cfg: CfgNode) -> None:
    """Raise ConfigError if a learner needs another kind of image tower than the backbone's; nothing is fetched for it."""
    backbone = cfg.MODEL.BACKBONE.NAME
    for name in _learners(cfg):
        if tunes_images(name, cfg.TRAINER) and not takes_image_prompts(backbone):
            raise ConfigError(f"{name} tunes the image tower, but that of {backbone} is no vision transformer; choose one, "
                              "such as ViT-B/16, or a learner of texts or features, such as CoOp or LinearProbe")
        if tunes_images(name, cfg.TRAINER) and cfg.INPUT.VIEWS:
            raise ConfigError(f"INPUT.VIEWS is {cfg.INPUT.VIEWS}, but {name} tunes the image tower, so that no view's features "
                              "can be kept; set it to 0, or take a learner of texts or features, such as CoOp")
        if read_by(name) == "pre_projection" and "image" not in tower_depths(backbone):
            raise ConfigError(f"{name} reads what a ViT's linear projection makes features of, which the image tower of "
                              f"{backbone} does not have; choose a ViT such as ViT-B/16")


def frozen_features(cfg: CfgNode, clip: FrozenCLIP, files: ImageFiles, split: str, reads: Reads = "features") -> torch.Tensor:
    """Return the frozen tower's output of a split, unit-norm features by default, from the cache where it has it."""
    return load_bank(*bank_source(cfg, clip, files, split, reads)).features


def bank_source(cfg: CfgNode, clip: FrozenCLIP, files: ImageFiles, split: str, reads: Reads = "features") -> Source:
    """Return where the frozen tower's output of a split is kept, and how it is made."""
    transform, paths = build_preprocessing(cfg.INPUT, clip.preprocessing).transform(), files.dataset.files(split)
    size = cfg.DATALOADER.TEST.BATCH_SIZE

    def extract(rows: Sequence[int]) -> Iterator[torch.Tensor]:
        wanted = in_batches(rows, size)
        pixels = pixel_batches([paths[row] for row in rows], transform, batch_size=[len(own) for own in wanted],
                               n_workers=cfg.DATALOADER.NUM_WORKERS)
        features = predict_some(pixels, pixel_encoder(clip, reads, transform), wanted, batch_size=size,
                                n_rows=len(paths), description=f"features of {files.dataset.name} {split}")
        return files.checked(split, rows, features)

    contents = files.contents(split)
    return Source(writable(cache_path(cfg)), _bank_key(cfg, clip, contents, reads), contents, extract)


def kept_features(
    cfg: CfgNode, clip: FrozenCLIP, dataset: Dataset, split: str, reads: Reads = "features"
) -> dict[str, torch.Tensor] | None:
    """Return what the cache alone has, None if nothing: `features`, and `digests` of their images, which need not be there."""
    paths = tuple(datum.path for datum in dataset.split(split))
    unread = Contents(dataset.name, split, paths, torch.empty(0), torch.empty(0), "")
    return stored_features(cache_path(cfg), _bank_key(cfg, clip, unread, reads), paths)


def _bank_key(cfg: CfgNode, clip: FrozenCLIP, contents: Contents, reads: Reads) -> Key:
    preprocessing = build_preprocessing(cfg.INPUT, clip.preprocessing)
    key = bank_key(clip.fingerprint, preprocessing, contents, cfg.MODEL.PREC, clip.device.type)
    key |= {} if clip.linear == TORCH else {"linear": clip.linear}  # older caches have neither this entry nor the next ones
    key |= rounding_of_card(cfg.MODEL.TF32) if clip.device.type == "cuda" else {}
    return key | kept_as(cfg.MODEL.FEATURES) | ({} if reads == "features" else {"reads": reads})


def build_inputs(
    cfg: CfgNode, clip: FrozenCLIP, dataset: Dataset, banks: Banks, store: ImageStore, files: ImageFiles | None = None
) -> Inputs:
    """Return what trainers of a whole config read: `store` keeps what is used more than once, `files` are of kept views."""
    preprocessing = build_preprocessing(cfg.INPUT, clip.preprocessing)
    loading = Loading(
        view=preprocessing.transform(), random_view=build_augmentation(cfg.INPUT, preprocessing),
        batch_size=cfg.DATALOADER.TEST.BATCH_SIZE, n_workers=cfg.DATALOADER.NUM_WORKERS, seed=cfg.SEED)
    views = {} if files is None or not cfg.INPUT.VIEWS else {
        kind: _view_bank(cfg, Inputs(clip, dataset, banks, loading, store), files, kind) for kind in banks}
    return Inputs(clip, dataset, banks, loading, store, views)


def _view_bank(cfg: CfgNode, inputs: Inputs, files: ImageFiles, reads: Reads) -> ViewBank:
    """Return the bank of `INPUT.VIEWS` views of each training image."""
    dataset, contents = files.dataset, files.contents("train")

    def encode(rows: Sequence[int], seeds: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
        places = [dataset.place(dataset.train[row].path) for row in rows]
        encode = pixel_encoder(inputs.clip, reads, inputs.loading.training_view)
        features = inputs.loading.encoded(places, seeds, sizes, encode, inputs.store)
        files.check("train", rows)  # days may lie between their hashing and this
        return features

    key = {name: value for name, value in _bank_key(cfg, inputs.clip, contents, reads).items() if name not in NOT_OF_VIEWS}
    key |= {name.lower(): list(cfg.INPUT[name]) for name in ("TRANSFORMS", "RRCROP_SCALE")}
    key |= {"crop_padding": cfg.INPUT.CROP_PADDING}
    return ViewBank(writable(cache_path(cfg)), key, cfg.INPUT.VIEWS, contents.digests, encode)


def build_trainer(cfg: CfgNode, inputs: Inputs) -> Any:
    """Return the trainer of `TRAINER.NAME`, as a whole config says to build and train it; that of a learner is PromptTrainer.

    It is what `active.plan.Trainer` describes.
    """
    setting = Setting(inputs, build_texts(cfg.TRAINER.DESCRIPTIONS, inputs.dataset), build_recipe(cfg))
    if is_learner(cfg.TRAINER.NAME):
        return PromptTrainer(setting)
    component = TRAINERS[cfg.TRAINER.NAME]
    return component.build(setting, **component.arguments(cfg.TRAINER.get(component.key, {})))


@dataclass(frozen=True)
class _ClipAlone:
    """The inputs of a trainer that reads models and trains none."""

    clip: FrozenCLIP


def build_model(cfg: CfgNode, path: Path, classnames: Sequence[str]) -> PromptedCLIP:
    """Return the model in a file that a run of a whole config has left, without its images.

    The data set is looked at for its template alone, and only if the file is of before files said it.
    """
    if not is_learner(cfg.TRAINER.NAME):
        raise UserError(f"{path} is of {cfg.TRAINER.NAME}, a trainer of its own, which predicts splits alone; only models of "
                        "learners can be used on other images")
    clip, template = build_clip(cfg, Held()), read_model(path)[0].get("template")
    if not isinstance(template, str):
        template = load_dataset(cfg.DATASET, cache_path(cfg)).template
    texts = build_texts(cfg.TRAINER.DESCRIPTIONS, ClassTexts(tuple(classnames), template))
    return PromptTrainer(Setting(_ClipAlone(clip), texts, build_recipe(cfg))).load(path)


def build_selector(cfg: CfgNode, inputs: Inputs) -> Any | None:
    """Return the trainer of `ACTIVE.SELECTOR_TRAINER`, with the values of `ACTIVE.SELECTOR_OPTIM` that are set; or None."""
    if not cfg.ACTIVE.SELECTOR_TRAINER:
        return None
    own, optim = cfg.clone(), cfg.ACTIVE.SELECTOR_OPTIM
    own.defrost()
    own.TRAINER.NAME = cfg.ACTIVE.SELECTOR_TRAINER
    own.TRAINER.ABSENT, own.TRAINER.CALIBRATION = optim.ABSENT, "none"
    own.OPTIM.LR = optim.LR or cfg.OPTIM.LR
    own.OPTIM.WEIGHT_DECAY = optim.WEIGHT_DECAY if optim.WEIGHT_DECAY >= 0 else cfg.OPTIM.WEIGHT_DECAY
    own.OPTIM.MAX_EPOCH = optim.MAX_EPOCH or cfg.OPTIM.MAX_EPOCH
    own.DATALOADER.TRAIN_X.BATCH_SIZE = optim.BATCH_SIZE or cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    return build_trainer(own, inputs)


def build_recipe(cfg: CfgNode) -> Recipe:
    """Return how a whole config says to build and train its learner."""

    def build_optimization(parameters: Sequence[nn.Parameter]) -> tuple[Optimizer, LRScheduler]:
        optimizer = build_optimizer(parameters, cfg.OPTIM)
        return optimizer, build_scheduler(optimizer, cfg.OPTIM)

    return Recipe(
        name=cfg.TRAINER.NAME, build_learner=_bound(cfg, cfg.TRAINER.NAME if is_learner(cfg.TRAINER.NAME) else "ZeroShot"),
        build_zero_shot=_bound(cfg, "ZeroShot"),
        build_optimization=build_optimization, n_epochs=cfg.OPTIM.MAX_EPOCH, batch_size=cfg.DATALOADER.TRAIN_X.BATCH_SIZE,
        n_mined=cfg.DATALOADER.TRAIN_U.BATCH_SIZE, drop_last=cfg.DATALOADER.TRAIN_X.DROP_LAST, seed=cfg.SEED,
        print_freq=cfg.TRAIN.PRINT_FREQ, keeps_order=keeps_order(cfg.TRAINER.NAME),
        masked=absent(cfg.TRAINER.ABSENT, cfg.TRAINER.NAME) == "masked", calibrated=cfg.TRAINER.CALIBRATION != "none")


def check_learners(cfg: CfgNode, clip: FrozenCLIP, dataset: Dataset) -> None:
    """Raise UserError if a learner of the config does not fit the backbone, the class names or the texts; costs nothing."""
    texts = build_texts(cfg.TRAINER.DESCRIPTIONS, dataset)
    for name in texts.classnames:
        if not len(word_ids(clip.tokenizer, name)):
            logger.warning("class name %r is nothing to the tokenizer of %s; give the class another name", name, clip.name)
    learners = {name: _bound(cfg, name)(clip, texts, rng_for(cfg.SEED, "check")) for name in ("ZeroShot", *_learners(cfg))}
    for name in sorted(learners, key="ZeroShot".__eq__):  # it is last: the learner that was asked for is named if it can be
        check_texts_differ(name, learners[name], texts.classnames)
    if cfg.TRAINER.CALIBRATION != "none":
        check_calibrated(cfg.TRAINER.NAME, learners.get(cfg.TRAINER.NAME))
    if texts.averaging is not None and getattr(learners.get(cfg.TRAINER.NAME), "averaging", None) is None:
        raise ConfigError(f"TRAINER.DESCRIPTIONS.MODE is {cfg.TRAINER.DESCRIPTIONS.MODE}, but the texts of {cfg.TRAINER.NAME} "
                          "are those of a fixed template; set it to none, or take a learner with a text context")


def _learners(cfg: CfgNode) -> list[str]:
    """Return the names of the learners that a config trains and selects by."""
    names = dict.fromkeys((cfg.TRAINER.NAME, cfg.ACTIVE.SELECTOR_TRAINER or cfg.TRAINER.NAME))
    return [name for name in names if is_learner(name)]


def _bound(cfg: CfgNode, name: str) -> BuildLearner:
    component = LEARNERS[name]
    return partial(component.build, **component.arguments(cfg.TRAINER.get(component.key, {})))


