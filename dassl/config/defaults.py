"""Every shared key with its unit and meaning. Key names are the field's own (Dassl, CoOp).

The nodes of data sets, prompt learners and samplers (`DATASET.<NAME>`, `TRAINER.<NAME>`, `ACTIVE.<NAME>`) are not here:
they come from the components' own parameters, see `dassl.utils.registry`.
"""

from yacs.config import CfgNode as Node

CHOICES = {
    "DATASET.SUBSAMPLE_CLASSES": ("all", "base", "new"),
    "DATASET.CORRUPT": ("error", "skip"),
    "INPUT.INTERPOLATION": ("", "bicubic", "bilinear", "nearest"),
    "MODEL.PREC": ("fp32", "fp16", "bf16"),
    "TRAINER.DESCRIPTIONS.MODE": ("none", "AS", "AE"),
    "TRAINER.DESCRIPTIONS.FORM": ("verb", "is/has"),
    "OPTIM.NAME": ("sgd", "adam", "adamw"),
    "OPTIM.LR_SCHEDULER": ("cosine", "single_step", "multi_step", "constant"),
    "OPTIM.WARMUP_TYPE": ("constant", "linear"),
    "ACTIVE.ORACLE": ("labels", "file"),
}

COUNT = 10**6  # more batches, epochs, rounds or threads than this can only be a slip of the pen

# The smallest and the largest value of each number.
BOUNDS = {
    "SEED": (-1, 2**32 - 1),
    "CPU_THREADS": (0, 4096),
    "INPUT.CROP_PADDING": (0, 1000),
    "DATASET.NUM_SHOTS": (-1, COUNT),
    "DATALOADER.NUM_WORKERS": (0, 1024),
    "DATALOADER.MEMORY_MB": (0, 2**24),
    "DATALOADER.TRAIN_X.BATCH_SIZE": (1, COUNT),
    "DATALOADER.TRAIN_U.BATCH_SIZE": (1, COUNT),
    "DATALOADER.TEST.BATCH_SIZE": (1, COUNT),
    "OPTIM.LR": (0.0, 1e6),
    "OPTIM.WEIGHT_DECAY": (0.0, 1e6),
    "OPTIM.MOMENTUM": (0.0, 1.0),
    "OPTIM.SGD_DAMPNING": (0.0, 1.0),
    "OPTIM.ADAM_BETA1": (0.0, 1.0),
    "OPTIM.ADAM_BETA2": (0.0, 1.0),
    "OPTIM.GAMMA": (0.0, 1.0),
    "OPTIM.MAX_EPOCH": (0, COUNT),
    "OPTIM.WARMUP_EPOCH": (0, COUNT),
    "OPTIM.WARMUP_CONS_LR": (0.0, 1e6),
    "OPTIM.WARMUP_MIN_LR": (0.0, 1e6),
    "TRAIN.PRINT_FREQ": (0, COUNT),
    "ACTIVE.ROUNDS": (1, COUNT),
    "ACTIVE.SELECTOR_OPTIM.LR": (0.0, 1e6),
    "ACTIVE.SELECTOR_OPTIM.WEIGHT_DECAY": (-1.0, 1e6),
    "ACTIVE.SELECTOR_OPTIM.MAX_EPOCH": (0, COUNT),
    "ACTIVE.SELECTOR_OPTIM.BATCH_SIZE": (0, COUNT),
}

# Keys that may hold another type than that of their default.
ALSO_TYPES = {"ACTIVE.QUERY_SIZE": (int,), "OPTIM.STEPSIZE": (int,)}

# Keys that say where and how fast a run happens, not what it computes: two runs that differ in these alone are the same.
NOT_PART_OF_A_RUN = ("OUTPUT_DIR", "CACHE_DIR", "DATASET.ROOT", "DATALOADER.NUM_WORKERS", "DATALOADER.MEMORY_MB",
                     "VERBOSE", "TRAIN.PRINT_FREQ", "LOG.TENSORBOARD", "ACTIVE.PLUGINS", "LABEL.METHOD", "LABEL.LEARNER",
                     "LABEL.DATASET")


def default_config() -> Node:
    """Return a new tree of all shared keys with their defaults."""
    cfg = Node()
    cfg.OUTPUT_DIR = "./output"  # results.json, log.txt, learning_curve.png and prompts/ go here
    cfg.CACHE_DIR = ""  # features of the frozen CLIP; "" is <DATASET.ROOT>/.cache
    cfg.SEED = 1  # 0 is a seed; -1 draws one and records it
    cfg.USE_CUDA = True  # use the GPU where there is one
    cfg.CPU_THREADS = 0  # torch threads on the CPU; 0 is torch's choice. Small models run fastest with 1
    cfg.DETERMINISTIC = False  # runs on a GPU repeat bit for bit too; on the CPU they always do
    cfg.VERBOSE = True  # print the merged config at the start of a run's log

    cfg.INPUT = Node()
    cfg.INPUT.SIZE = ()  # (height, width) in pixels; () is what the backbone was trained with
    cfg.INPUT.INTERPOLATION = ""  # bicubic, bilinear or nearest; "" is the backbone's own
    cfg.INPUT.PIXEL_MEAN = ()  # per channel, of values in [0, 1]; () is the backbone's own
    cfg.INPUT.PIXEL_STD = ()
    cfg.INPUT.TRANSFORMS = ()  # training only, in this order, such as ["random_resized_crop", "random_flip", "normalize"]
    cfg.INPUT.RRCROP_SCALE = (0.08, 1.0)  # share of the image's area that random_resized_crop may keep
    cfg.INPUT.CROP_PADDING = 4  # pixels on each side, for random_crop
    cfg.INPUT.EXIF_ROTATION = True  # turn photographs upright; the code of the field's papers does not
    cfg.INPUT.JPEG_DRAFT = False  # decode large JPEG files at reduced scale: faster, but no longer the same pixels

    cfg.DATASET = Node()
    cfg.DATASET.NAME = ""
    cfg.DATASET.ROOT = "./data"  # the folder that holds all data sets
    cfg.DATASET.NUM_SHOTS = -1  # train images kept a class (of val: at most 4), drawn by SEED; -1 keeps all
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all, base (the first half of the classes, rounded up) or new (the others)
    cfg.DATASET.CORRUPT = "error"  # images that cannot be decoded: error, or skip (every file is then decoded first)

    cfg.DATALOADER = Node()
    cfg.DATALOADER.NUM_WORKERS = 4  # processes (or threads) that decode images; 0 decodes in the main process
    cfg.DATALOADER.MEMORY_MB = 2048  # for decoded images and image tokens together; the rest is made again at each use
    cfg.DATALOADER.TRAIN_X = Node()
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 32
    cfg.DATALOADER.TRAIN_X.DROP_LAST = True  # as in Dassl: no last partial batch, unless it is the only one
    cfg.DATALOADER.TRAIN_U = Node()
    cfg.DATALOADER.TRAIN_U.BATCH_SIZE = 64  # pseudo-labeled images beside each batch of TRAIN_X, where a sampler mines them
    cfg.DATALOADER.TEST = Node()
    cfg.DATALOADER.TEST.BATCH_SIZE = 100

    cfg.MODEL = Node()
    cfg.MODEL.PREC = "fp32"  # of the frozen towers; prompts are always fp32
    cfg.MODEL.BACKBONE = Node()
    cfg.MODEL.BACKBONE.NAME = "ViT-B/16"  # an OpenAI name, an open_clip name, or the stem of a file in configs/models
    cfg.MODEL.BACKBONE.PRETRAINED = "openai"  # an open_clip tag or the path of a weights file

    cfg.OPTIM = Node()
    cfg.OPTIM.NAME = "sgd"
    cfg.OPTIM.LR = 0.002
    cfg.OPTIM.WEIGHT_DECAY = 5e-4
    cfg.OPTIM.MOMENTUM = 0.9
    cfg.OPTIM.SGD_DAMPNING = 0.0  # Dassl's spelling
    cfg.OPTIM.SGD_NESTEROV = False
    cfg.OPTIM.ADAM_BETA1 = 0.9
    cfg.OPTIM.ADAM_BETA2 = 0.999
    cfg.OPTIM.MAX_EPOCH = 200
    cfg.OPTIM.LR_SCHEDULER = "cosine"
    cfg.OPTIM.STEPSIZE = (-1,)  # epochs; one number for single_step, several for multi_step; -1 is MAX_EPOCH
    cfg.OPTIM.GAMMA = 0.1  # factor of single_step and multi_step
    cfg.OPTIM.WARMUP_EPOCH = 1
    cfg.OPTIM.WARMUP_TYPE = "constant"
    cfg.OPTIM.WARMUP_CONS_LR = 1e-5
    cfg.OPTIM.WARMUP_MIN_LR = 1e-5  # first learning rate of the linear warm-up

    cfg.TRAIN = Node()
    cfg.TRAIN.PRINT_FREQ = 5  # epochs between loss lines in log.txt; 0 prints none

    cfg.LOG = Node()
    cfg.LOG.TENSORBOARD = False  # write each round's numbers for TensorBoard (pip install tensorboard)

    cfg.LABEL = Node()  # how tables and figures name a run; "" is the name of its sampler, learner or data set
    cfg.LABEL.METHOD = ""
    cfg.LABEL.LEARNER = ""
    cfg.LABEL.DATASET = ""

    cfg.TRAINER = Node()
    cfg.TRAINER.NAME = "CoOp"
    cfg.TRAINER.DESCRIPTIONS = Node()  # several texts a class, for learners with a text context
    cfg.TRAINER.DESCRIPTIONS.MODE = "none"  # AS averages scores, AE embeddings
    cfg.TRAINER.DESCRIPTIONS.FILE = ""  # JSON, class name to list of descriptions
    cfg.TRAINER.DESCRIPTIONS.FORM = "verb"  # "which is" or "which has" by the first word, or is/has: both, as PCB's code writes

    cfg.ACTIVE = Node()
    cfg.ACTIVE.SAMPLER = "random"
    cfg.ACTIVE.INITIAL_SAMPLER = "auto"  # of round 0; auto: random for samplers that need labels, else the sampler itself
    cfg.ACTIVE.SELECTOR_TRAINER = ""  # the learner that selects, beside TRAINER.NAME, which is reported; "" is TRAINER.NAME
    cfg.ACTIVE.SELECTOR_OPTIM = Node()  # of that learner; 0 is the value of OPTIM and DATALOADER.TRAIN_X
    cfg.ACTIVE.SELECTOR_OPTIM.LR = 0.0
    cfg.ACTIVE.SELECTOR_OPTIM.WEIGHT_DECAY = -1.0  # -1 is that of OPTIM, since 0 is a decay too
    cfg.ACTIVE.SELECTOR_OPTIM.MAX_EPOCH = 0
    cfg.ACTIVE.SELECTOR_OPTIM.BATCH_SIZE = 0
    cfg.ACTIVE.ROUNDS = 6
    cfg.ACTIVE.QUERY_SIZE = "1%"  # labels bought a round: an integer, a share of the train split, or per_class
    cfg.ACTIVE.ORACLE = "labels"  # the data set's labels, or file: people label what it does not, see active/oracles/files.py
    cfg.ACTIVE.PLUGINS = []  # files or modules to import first, so that samplers and learners can live anywhere
    return cfg
