"""Every shared key with its type, unit and meaning. Key names are the field's own (Dassl, CoOp).

The nodes of data sets, learners, samplers and the others (`DATASET.<NAME>`, `TRAINER.<NAME>`, `ACTIVE.<NAME>`) are not here:
they come from the components' own parameters, which are annotated in the same way, see `dassl.utils.registry`.
"""

import typing
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from inspect import isclass
from typing import Annotated, Literal

from yacs.config import CfgNode as Node

from dassl.utils.registry import AtLeast, AtMost, Before, NameOf, Parameter, parameter_of


@dataclass(frozen=True)
class Circumstance:
    """Marks a key, in `Annotated`, that says where and how fast a run happens, not what it computes.

    Two runs that differ in these alone are the same. Those of components are not recorded, see `dassl.config.setup.as_dict`.
    """


COUNT = 10**6  # more batches, epochs, rounds or threads than this can only be a slip of the pen

Count = Annotated[int, AtLeast(0), AtMost(COUNT)]
Positive = Annotated[int, AtLeast(1), AtMost(COUNT)]
Rate = Annotated[float, AtLeast(0.0), AtMost(1e6)]
Share = Annotated[float, AtLeast(0.0), AtMost(1.0)]
Switch = Annotated[bool, Circumstance()]
Place = Annotated[str, Circumstance()]  # a path or a name


class Config:
    """The shared keys, a class for each node. The type of a key is that of its default, and what its annotation adds to it."""

    OUTPUT_DIR: Place = "./output"  # results.json, log.txt, learning_curve.png and prompts/ go here
    CACHE_DIR: Place = ""  # features of the frozen CLIP; "" is <DATASET.ROOT>/.cache
    SEED: Annotated[int, AtLeast(-1), AtMost(2**32 - 1)] = 1  # 0 is a seed; -1 draws one and records it
    USE_CUDA: bool = True  # use the GPU where there is one
    # torch threads on the CPU; 0 is torch's choice. Small models run fastest with 1
    CPU_THREADS: Annotated[int, AtLeast(0), AtMost(4096)] = 0
    DETERMINISTIC: bool = False  # runs on a GPU repeat bit for bit too; on the CPU they always do
    VERBOSE: Switch = True  # print the merged config at the start of a run's log

    class INPUT:
        SIZE: tuple[int, ...] = ()  # (height, width) in pixels; () is what the backbone was trained with
        INTERPOLATION: Literal["", "bicubic", "bilinear", "nearest"] = ""  # "" is the backbone's own
        # of images that are not augmented: shortest covers the input size and is cropped, squash stretches, longest fits in and
        # gets a frame; "" is the backbone's own
        RESIZE: Literal["", "shortest", "squash", "longest"] = ""
        PIXEL_MEAN: tuple[float, ...] = ()  # per channel, of values in [0, 1]; () is the backbone's own
        PIXEL_STD: tuple[float, ...] = ()
        # training only, in this order, such as ["random_resized_crop", "random_flip", "normalize"]
        TRANSFORMS: tuple[str, ...] = ()
        # augmented views that an image has in all, encoded once and kept in CACHE_DIR for all runs; 0 is a new one every epoch.
        # For learners that leave the image tower as it is, see benchmarks/views.md
        VIEWS: Annotated[int, AtLeast(0), AtMost(1000)] = 0
        RRCROP_SCALE: tuple[float, ...] = (0.08, 1.0)  # share of the image's area that random_resized_crop may keep
        CROP_PADDING: Annotated[int, AtLeast(0), AtMost(1000)] = 4  # pixels on each side, for random_crop
        EXIF_ROTATION: bool = True  # turn photographs upright; the code of the field's papers does not
        JPEG_DRAFT: bool = False  # decode large JPEG files at reduced scale: faster, but no longer the same pixels

    class DATASET:
        NAME: Annotated[str, NameOf("data set")] = ""
        ROOT: Place = "./data"  # the folder that holds all data sets
        # train images kept a class (of val: at most 4), drawn by SEED; -1 keeps all
        NUM_SHOTS: Annotated[int, AtLeast(-1), AtMost(COUNT)] = -1
        # all, base (the first half of the classes, rounded up) or new (the others)
        SUBSAMPLE_CLASSES: Literal["all", "base", "new"] = "all"
        # images that cannot be decoded: error, or skip (every file is then decoded first)
        CORRUPT: Literal["error", "skip"] = "error"

    class DATALOADER:
        # processes (or threads) that decode images; 0 decodes in the main process
        NUM_WORKERS: Annotated[int, AtLeast(0), AtMost(1024), Circumstance()] = 4
        # for decoded images and image tokens together; the rest is made again at each use
        MEMORY_MB: Annotated[int, AtLeast(0), AtMost(2**24), Circumstance()] = 2048

        class TRAIN_X:
            BATCH_SIZE: Positive = 32
            DROP_LAST: bool = True  # as in Dassl: no last partial batch, unless it is the only one

        class TRAIN_U:
            BATCH_SIZE: Positive = 64  # pseudo-labeled images beside each batch of TRAIN_X, where a sampler mines them

        class TEST:
            BATCH_SIZE: Positive = 100

    class MODEL:
        # whose fp32 products compute linear layers and pairs on the CPU: torch's own (MKL on x86) or oneDNN's; auto is the one
        # that the record was begun with, or else oneDNN's where it is much faster; records name it, see dassl/utils/linear.py
        LINEAR: Annotated[Literal["auto", "torch", "onednn"], Circumstance()] = "auto"
        PREC: Literal["fp32", "fp16", "bf16"] = "fp32"  # of the frozen towers; prompts are always fp32
        TF32: bool = False  # whether a GPU may round the factors of fp32 products to 10 bits: faster, and another result
        # how features of the frozen image tower are kept in CACHE_DIR: float16 takes half the space, see docs/scale.md
        FEATURES: Literal["float32", "float16"] = "float32"

        class BACKBONE:
            # an OpenAI name, an open_clip name, the stem of a file in configs/models, or the folder of a checkpoint
            NAME: str = "ViT-B/16"
            PRETRAINED: str = "openai"  # an open_clip tag, or a weights file or folder; "" is the folder that is the NAME
            TOKENIZER: str = ""  # the folder of its files; "" is that of the weights, or else Hugging Face's cache or network

    class OPTIM:
        NAME: Literal["sgd", "adam", "adamw"] = "sgd"
        LR: Rate = 0.002
        WEIGHT_DECAY: Rate = 5e-4
        MOMENTUM: Share = 0.9
        SGD_DAMPNING: Share = 0.0  # Dassl's spelling
        SGD_NESTEROV: bool = False
        ADAM_BETA1: Share = 0.9
        ADAM_BETA2: Share = 0.999
        MAX_EPOCH: Count = 200
        LR_SCHEDULER: Literal["cosine", "single_step", "multi_step", "constant"] = "cosine"
        STEPSIZE: tuple[int, ...] | int = (-1,)  # epochs; one number for single_step, several for multi_step; -1 is MAX_EPOCH
        GAMMA: Share = 0.1  # factor of single_step and multi_step
        WARMUP_EPOCH: Count = 1
        WARMUP_TYPE: Literal["constant", "linear"] = "constant"
        WARMUP_CONS_LR: Rate = 1e-5
        WARMUP_MIN_LR: Rate = 1e-5  # first learning rate of the linear warm-up

    class TRAIN:
        PRINT_FREQ: Annotated[Count, Circumstance()] = 5  # epochs between loss lines in log.txt; 0 prints none

    class LOG:
        # why images were picked, in queries/: the sampler's values of those that are asked, or of all that could be
        SCORES: Annotated[Literal["none", "picks", "pool"], Circumstance()] = "none"
        # whether learning_curve.png is drawn at the end: of single runs alone, of cells of a sweep too, or never
        CURVE: Annotated[Literal["single", "always", "never"], Circumstance()] = "single"
        TENSORBOARD: Switch = False  # as TRACKERS: [tensorboard], but what cannot be written ends the run
        # where a run is shown: tensorboard, wandb, mlflow; one that fails loses no round, see active/record/trackers
        TRACKERS: Annotated[list[str], NameOf("recorder"), Circumstance()] = []  # noqa: RUF012  copied by default_config
        # names of further recorders, such as those of plug-ins, see active/record/recorders.py
        RECORDERS: Annotated[list[str], NameOf("recorder"), Circumstance()] = []  # noqa: RUF012  copied by default_config

    class TEST:
        # on the test split, see dassl/evaluation/metrics.py
        METRICS: Annotated[tuple[str, ...], NameOf("metric")] = ("accuracy", "macro_f1", "ece")

    class LABEL:  # how tables and figures name a run; "" is the name of its sampler, learner or data set
        METHOD: Place = ""
        LEARNER: Place = ""
        DATASET: Place = ""

    class TRAINER:
        # classes without a label: masked leaves them out of the loss, pushed trains against them, auto is the learner's own
        ABSENT: Annotated[Literal["auto", "masked", "pushed"], Before("pushed")] = "auto"
        # temperature of the probabilities, of the learners without prompts: none, or fitted to labeled images, each left out
        CALIBRATION: Literal["none", "leave_one_out"] = "none"
        NAME: Annotated[str, NameOf("learner"), NameOf("trainer")] = "CoOp"

        class DESCRIPTIONS:  # several texts a class, for learners with a text context
            MODE: Literal["none", "AS", "AE"] = "none"  # AS averages scores, AE embeddings
            FILE: str = ""  # JSON, class name to list of descriptions
            # "which is" or "which has" by the first word, or is/has: both, as PCB's code writes
            FORM: Literal["verb", "is/has"] = "verb"

    class ACTIVE:
        SAMPLER: Annotated[str, NameOf("sampler")] = "random"
        # of round 0; auto: random for samplers that need labels, else the sampler itself
        INITIAL_SAMPLER: Annotated[str, NameOf("sampler")] = "auto"
        # the learner that selects, beside TRAINER.NAME, which is reported; "" is TRAINER.NAME
        SELECTOR_TRAINER: Annotated[str, NameOf("learner"), NameOf("trainer")] = ""

        class SELECTOR_OPTIM:  # of that learner; 0 is the value of OPTIM and DATALOADER.TRAIN_X
            LR: Rate = 0.0
            WEIGHT_DECAY: Annotated[float, AtLeast(-1.0), AtMost(1e6)] = -1.0  # -1 is that of OPTIM, since 0 is a decay too
            MAX_EPOCH: Count = 0
            BATCH_SIZE: Count = 0
            # as TRAINER.ABSENT; auto is that learner's own
            ABSENT: Annotated[Literal["auto", "masked", "pushed"], Before("pushed")] = "auto"

        # where picks are computed: auto is the card that the model is on, if the pool fits there with room to spare, else the
        # CPU. Picks are the same up to rounding; records name the card that made them, see active/devices.py
        DEVICE: Annotated[Literal["auto", "cpu", "cuda"], Circumstance()] = "auto"
        ROUNDS: Positive = 6
        QUERY_SIZE: str | int = "1%"  # labels bought a round: an integer, a share of the train split, or per_class
        # labels that are there from the start, unpaid: a CSV file (path, label), a Label Studio export, or a results.json
        KNOWN_LABELS: str = ""
        RENAMED_CLASSES: str = ""  # what their classes are called now: a CSV file with the columns old and new
        # random images, a number or a share of the train split, whose labels tell how good each model is; see active/audit.py
        AUDIT: str | int = ""
        AUDIT_ROUNDS: Positive = 1  # they are labeled beside the queries of so many rounds
        # end the run once kappa, by which predictions agree with those of a model with C labels less, is so large; 0 is never
        STOP: Share = 0.0
        # answers such as "!unsure heron": leave_out trains on none of them, half counts each as half a label
        UNSURE: Literal["leave_out", "half"] = "leave_out"
        REFILL: bool = False  # a round asks other images in place of those that people skip, so that it has all of its labels
        # the data set's labels, or page or file: people label what it does not, see docs/people.md
        ORACLE: Annotated[str, NameOf("oracle")] = "labels"
        # files or modules to import first, so that samplers and learners can live anywhere
        PLUGINS: Annotated[list[str], Circumstance()] = []  # noqa: RUF012  each tree gets a copy


def _declared(node: type, prefix: str = "") -> Iterator[Parameter]:
    """Yield the keys of a node and of those in it, by dotted name, in their order."""
    hints = typing.get_type_hints(node, include_extras=True)
    for name, value in vars(node).items():
        if isclass(value):
            yield from _declared(value, f"{prefix}{name}.")
        elif not name.startswith("__"):
            yield parameter_of("the shared config", f"{prefix}{name}", value, hints[name])


SHARED = {parameter.name: parameter for parameter in _declared(Config)}

NOT_PART_OF_A_RUN = frozenset(key for key, parameter in SHARED.items() if Circumstance() in parameter.extras)


def is_part_of_a_run(key: str) -> bool:
    """Tell whether two runs that differ in a key are two; what recorders are told, under `LOG`, changes no run."""
    return key not in NOT_PART_OF_A_RUN and not key.startswith("LOG.")


def default_config() -> Node:
    """Return a new tree of all shared keys with their defaults."""
    cfg = Node()
    for key, parameter in SHARED.items():
        *above, name = key.split(".")
        node = cfg
        for part in above:
            if part not in node:
                node[part] = Node()
            node = node[part]
        node[name] = copy(parameter.default)
    return cfg
