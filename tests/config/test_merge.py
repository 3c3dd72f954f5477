"""Reading YAML, and the strict merge of files and KEY VALUE pairs."""

from pathlib import Path

import pytest
from yacs.config import CfgNode

import datasets  # noqa: F401  registers the data sets
from dassl.config.defaults import SHARED, default_config
from dassl.config.merge import leaves, lookup, merge_pairs, merge_tree
from dassl.config.reading import read_yaml
from dassl.config.setup import setup_config
from dassl.data.dataset import DATASETS
from dassl.utils.errors import ConfigError
from trainers.registry import LEARNERS

COOP_VIT_B16 = """\
DATALOADER:
  TRAIN_X:
    BATCH_SIZE: 32
  TEST:
    BATCH_SIZE: 100
  NUM_WORKERS: 8

INPUT:
  SIZE: (224, 224)
  INTERPOLATION: "bicubic"
  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]
  PIXEL_STD: [0.26862954, 0.26130258, 0.27577711]
  TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]

OPTIM:
  NAME: "sgd"
  LR: 0.002
  MAX_EPOCH: 200
  LR_SCHEDULER: "cosine"
  WARMUP_EPOCH: 1
  WARMUP_TYPE: "constant"
  WARMUP_CONS_LR: 1e-5

TRAIN:
  PRINT_FREQ: 5

MODEL:
  BACKBONE:
    NAME: "ViT-B/16"
"""


def merged(folder: Path, content: str | bytes) -> CfgNode:
    path = folder / "run.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    cfg = default_config()
    merge_tree(cfg, read_yaml(path), str(path), SHARED)
    return cfg


def merged_pair(key: str, value: str) -> CfgNode:
    cfg = default_config()
    merge_pairs(cfg, [(key, value)], SHARED)
    return cfg


def test_the_published_coop_config_merges_with_the_right_types(tmp_path):
    """CoOp's own vit_b16.yaml needs no edit: its size arrives as a tuple of integers, its 1e-5 as a number."""
    cfg = merged(tmp_path, COOP_VIT_B16)
    assert cfg.INPUT.SIZE == (224, 224)
    assert cfg.INPUT.PIXEL_MEAN == (0.48145466, 0.4578275, 0.40821073)
    assert cfg.INPUT.TRANSFORMS == ("random_resized_crop", "random_flip", "normalize")
    assert cfg.OPTIM.WARMUP_CONS_LR == 1e-5
    assert cfg.DATALOADER.NUM_WORKERS == 8
    types = {key: type(value) for key, value in leaves(cfg).items()}
    assert types == {key: type(value) for key, value in leaves(default_config()).items()}


@pytest.mark.parametrize(("content", "parts"), [
    ("OPTIM:\n  LRR: 1\n", ["OPTIM.LRR", "unknown key", "'OPTIM.LR'"]),
    ("OPTIMS:\n  LR: 1\n", ["OPTIMS", "unknown key", "'OPTIM'"]),
    ("optim:\n  LR: 1\n", ["optim", "unknown key", "'OPTIM'"]),
    ("OPTIM.LR: 1\n", ["OPTIM.LR", "unknown key", "nested"]),
    ("1: 2\n", ["unknown key 1"]),
    ("OPTIM:\n  LR: fast\n", ["OPTIM.LR", "a number", "'fast'"]),
    ("OPTIM:\n  LR: true\n", ["OPTIM.LR", "a number", "True"]),
    ("OPTIM:\n  LR:\n", ["OPTIM.LR", "a number", "nothing"]),
    ("OPTIM:\n  MAX_EPOCH: 2.5\n", ["OPTIM.MAX_EPOCH", "an integer", "2.5"]),
    ("OPTIM:\n  SGD_NESTEROV: 1\n", ["OPTIM.SGD_NESTEROV", "true or false", "1"]),
    ("SEED: 2020-01-01\n", ["SEED", "an integer", "date"]),
    ("INPUT:\n  SIZE: 224\n", ["INPUT.SIZE", "a list", "224"]),
    ("DATASET:\n  NAME: no\n", ["DATASET.NAME", "a string", "False"]),
    ("OPTIM: 3\n", ["OPTIM", "keys of its own", "3"]),
    ("OPTIM:\n", ["OPTIM", "keys of its own", "None"]),
    ("SEED:\n  A: 1\n", ["SEED", "an integer", "a mapping"]),
    ("OPTIM:\n  LR: .nan\n", ["OPTIM.LR", "finite", "nan"]),
    ("OPTIM:\n  LR: -.inf\n", ["OPTIM.LR", "finite", "inf"]),
    ("OPTIM:\n  LR: 1e999\n", ["OPTIM.LR", "finite", "inf"]),
    (f"OPTIM:\n  LR: {'9' * 400}\n", ["OPTIM.LR", "finite", "inf"]),
    ("INPUT:\n  PIXEL_MEAN: [0.5, .nan, 0.5]\n", ["INPUT.PIXEL_MEAN", "finite", "nan"]),
    (f"SEED: {2**63}\n", ["SEED", "2^63", str(2**63)]),
])
def test_a_wrong_key_or_value_is_one_line_with_file_and_key(tmp_path, content, parts):
    """The line says what came and what would be right (row 14 of the faults table)."""
    with pytest.raises(ConfigError) as caught:
        merged(tmp_path, content)
    assert_one_line(caught.value, tmp_path / "run.yaml", *parts)


@pytest.mark.parametrize(("content", "parts"), [
    ("SEED: 1\nSEED: 2\n", ["'SEED'", "twice", "lines 1 and 2"]),
    ("OPTIM:\n  LR: 1\n  NAME: sgd\n  LR: 2\n", ["'LR'", "twice", "lines 2 and 4"]),
    ("OPTIM:\n\tLR: 1\n", ["line 2, column 1", r"'\t'"]),
    ("OPTIM: [\n", ["line 2"]),
    ("", ["empty"]),
    ("# only a comment\n", ["empty"]),
    ("- SEED\n- 1\n", ["top level", "a list"]),
    ("SEED\n", ["top level", "a string"]),
    ("SEED: 1\n---\nSEED: 2\n", ["another document"]),
    ("OUTPUT_DIR: {{ folder }}\n", ["unhashable key"]),
    ("OUTPUT_DIR: 2020-13-45\n", ["month"]),
    (f"SEED: {'9' * 5000}\n", ["digits"]),
    (f"SEED: {'[' * 1000}\n", ["nested more than 100 levels"]),
    ("SEED: !!python/object/apply:os.getpid []\n", ["line 1, column 7", "os.getpid"]),
    ("SEED: 1\x00\n", ["#x0000"]),
    (b"OUTPUT_DIR: caf\xe9\n", ["not UTF-8", "byte 15"]),
    ("SEED: 1\n".encode("utf-16"), ["not UTF-8"]),
])
def test_a_file_that_is_no_yaml_mapping_is_one_line_with_file_and_place(tmp_path, content, parts):
    """No text in a file causes a traceback (row 14 of the faults table)."""
    with pytest.raises(ConfigError) as caught:
        merged(tmp_path, content)
    assert_one_line(caught.value, tmp_path / "run.yaml", *parts)


def test_a_python_file_is_refused_and_not_executed(tmp_path):
    """yacs alone would run it (row 14 of the faults table)."""
    path = tmp_path / "config.py"
    path.write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch(); cfg = {{}}")
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert_one_line(caught.value, path, ".yaml")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["absent.yaml", "folder.yaml"])
def test_a_path_that_is_no_file_is_named(tmp_path, name):
    """For a missing file and for a folder there is one line each."""
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / name)
    assert_one_line(caught.value, tmp_path / name, "o such file" if name == "absent.yaml" else "a directory")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    """Editors on Windows write one (row 14 of the faults table)."""
    assert merged(tmp_path, b"\xef\xbb\xbfSEED: 3\n").SEED == 3


def test_a_key_may_override_what_it_merges_in(tmp_path):
    """A key next to YAML's `<<` does not count as a duplicate of a merged one."""
    cfg = merged(tmp_path, "DATALOADER:\n  TEST: &small\n    BATCH_SIZE: 2\n  TRAIN_X:\n    <<: *small\n    BATCH_SIZE: 3\n")
    assert (cfg.DATALOADER.TEST.BATCH_SIZE, cfg.DATALOADER.TRAIN_X.BATCH_SIZE) == (2, 3)


def test_an_integer_is_accepted_for_a_float(tmp_path):
    """`LR: 1` arrives as the float 1.0; yacs alone refuses it."""
    rate = merged(tmp_path, "OPTIM:\n  LR: 1\n").OPTIM.LR
    assert (rate, type(rate)) == (1.0, float)


@pytest.mark.parametrize(("key", "text", "value"), [
    ("OPTIM.LR", "1e-3", 1e-3),
    ("OPTIM.LR", "1", 1.0),
    ("SEED", "-1", -1),
    ("USE_CUDA", "false", False),
    ("USE_CUDA", "True", True),
    ("INPUT.SIZE", "(64, 32)", (64, 32)),
    ("INPUT.SIZE", "[64, 32]", (64, 32)),
    ("ACTIVE.PLUGINS", "['a.py']", ["a.py"]),
    ("ACTIVE.QUERY_SIZE", "10", 10),
    ("ACTIVE.QUERY_SIZE", "10%", "10%"),
    ("OPTIM.STEPSIZE", "10", 10),
    ("OPTIM.STEPSIZE", "(10, 20)", (10, 20)),
    ("OUTPUT_DIR", "2024", "2024"),
    ("DATASET.NAME", "true", "true"),
])
def test_a_pair_of_the_command_line_arrives_in_its_keys_type(key, text, value):
    """Words become numbers, lists and true/false where the key holds such, and stay words where it holds a string."""
    found = lookup(merged_pair(key, text), key)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("key", "text", "parts"), [
    ("DATALOADER.NUM_WORKERS", "true", ["an integer", "True"]),
    ("DATALOADER.NUM_WORKERS", "1.0", ["an integer", "1.0"]),
    ("USE_CUDA", "1", ["true or false", "1"]),
    ("OPTIM.LR", "fast", ["a number", "'fast'"]),
    ("OPTIM.LR", "1e999", ["finite", "inf"]),
    ("OPTIM.LR", "nan", ["a number", "'nan'"]),
    ("SEED", "9" * 30, ["2^63"]),
    ("SEED", "", ["an integer", "''"]),
    ("OPTIM", "3", ["keys of its own", "'3'"]),
    ("OPTIM.LR.X", "3", ["OPTIM.LR ", "a number", "a mapping"]),
    ("DATALOADER.TRAINX.BATCH_SIZE", "3", ["unknown key DATALOADER.TRAINX", "DATALOADER.TRAIN_X"]),
])
def test_a_wrong_pair_is_one_line_with_its_key(key, text, parts):
    """The command line is held to the same rules as a file (row 14 of the faults table)."""
    with pytest.raises(ConfigError) as caught:
        merged_pair(key, text)
    assert_one_line(caught.value, "command line", key.removesuffix(".X").removesuffix(".BATCH_SIZE"), *parts)


def assert_one_line(error: ConfigError, *parts: object) -> None:
    message = str(error)
    assert "\n" not in message
    assert message.startswith(f"{parts[0]}: ")
    assert [part for part in parts if str(part) not in message] == []


@pytest.mark.parametrize(("key", "first", "second", "expected"), [
    ("ACTIVE.QUERY_SIZE", "4", "1%", "1%"), ("ACTIVE.QUERY_SIZE", "1%", "4", 4),
    ("ACTIVE.QUERY_SIZE", "4", "per_class", "per_class"),
    ("OPTIM.STEPSIZE", "5", "(5, 10)", (5, 10)), ("OPTIM.STEPSIZE", "(5, 10)", "7", 7)])
def test_a_key_that_is_set_twice_keeps_its_types(tmp_path, key, first, second, expected):
    """Types do not depend on the earlier value, be it from a file or from the command line."""
    node, leaf = key.split(".")
    file = tmp_path / "a.yaml"
    file.write_text(f"{node}: {{{leaf}: {first if '(' not in first else [5, 10]}}}\n")
    for files, pairs in (([file], [(key, second)]), ([], [(key, first), (key, second)])):
        assert lookup(setup_config([str(path) for path in files], pairs, ()), key) == expected


def test_a_key_of_a_component_takes_the_types_of_its_annotation():
    """`int | str` holds words and numbers, in any order."""
    for pairs, expected in (([("TRAINER.VPT.PROMPT_DEPTH", "3")], 3), ([("TRAINER.VPT.PROMPT_DEPTH", "all")], "all"),
                            ([("TRAINER.VPT.PROMPT_DEPTH", "3"), ("TRAINER.VPT.PROMPT_DEPTH", "all")], "all")):
        assert expected == setup_config([], pairs, (LEARNERS,)).TRAINER.VPT.PROMPT_DEPTH
    with pytest.raises(ConfigError, match=r"TRAINER.VPT.PROMPT_DEPTH must be a string or an integer, not a number 1.5"):
        merge_tree(cfg := setup_config([], [], (LEARNERS,)), {"TRAINER": {"VPT": {"PROMPT_DEPTH": 1.5}}}, "file",
                   LEARNERS.parameters())
    assert cfg.TRAINER.VPT.PROMPT_DEPTH == "all"


@pytest.mark.parametrize("learner", ["COOP", "MAPLE", "VPT"])
def test_the_precision_of_published_files_points_to_ours(learner):
    """CoOp and MaPLe keep this key with the learner. A key that several nodes have gives no hint."""
    with pytest.raises(ConfigError, match=rf"unknown key TRAINER.{learner}.PREC; did you mean 'MODEL.PREC'\?"):
        setup_config([], [(f"TRAINER.{learner}.PREC", "fp16")], (LEARNERS,))


@pytest.mark.parametrize(("published", "own"), [
    ("DescribableTextures", "DTD"), ("OxfordFlowers", "Flowers102"), ("DTD", "DTD")])
def test_published_names_of_data_sets_are_known(published, own):
    """Published YAML files use CoOp's class names. The record has one name for each data set."""
    assert own == setup_config([], [("DATASET.NAME", published)], (DATASETS,)).DATASET.NAME
    assert DATASETS[published].name == own and published in DATASETS
