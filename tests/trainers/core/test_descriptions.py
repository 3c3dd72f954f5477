"""Descriptions of classes: errors in the file, the texts made from it, and the matrix."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dassl.config.setup import setup_config
from dassl.data.dataset import Dataset, Datum
from dassl.utils.errors import ConfigError, DataError
from trainers.core.build import check_learners
from trainers.core.descriptions import build_texts, check_descriptions, described, read_descriptions
from trainers.registry import LEARNERS

CONFIGS = Path(__file__).parents[3] / "configs"


def written(tmp_path, content):
    (tmp_path / "descriptions.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path / "descriptions.json"


@pytest.mark.parametrize(("descriptor", "text"), [
    ("dark stripes", "hot dog, which has dark stripes"), ("a long tail", "hot dog, which is a long tail"),
    ("used for eating.", "hot dog, which is used for eating"), ("has fur", "hot dog, which has fur"),
    ("often red", "hot dog, which often red"), ("An apple", "hot dog, which is An apple")])
def test_the_verb_follows_the_first_word(descriptor, text):
    """"which is" comes before an article or "used", nothing before a verb, and "which has" otherwise."""
    assert described("Hot_Dog", descriptor, "verb") == text


@pytest.mark.parametrize("descriptor", ["dark stripes", "a long tail", "used for eating.", "has fur"])
def test_pcbs_form_is_literal(descriptor):
    """It is used however the descriptor begins."""
    assert described("Hot_Dog", descriptor, "is/has") == f"hot dog, which is/has {descriptor}"


def test_pcbs_pages_use_its_form():
    """The default form is the verb's. PCB's five pages and its experiment use PCB's form."""
    assert setup_config([], [], [LEARNERS]).TRAINER.DESCRIPTIONS.FORM == "verb"
    pages = sorted(CONFIGS.glob("trainers/CoOp/*_csc.yaml"))
    assert [setup_config([str(page)], [], [LEARNERS]).TRAINER.DESCRIPTIONS.FORM for page in pages] == 5 * ["is/has"]
    experiment = yaml.safe_load((CONFIGS / "experiments" / "pcb.yaml").read_text())
    assert experiment["OVERRIDES"]["TRAINER"]["DESCRIPTIONS"]["FORM"] == "is/has"


def test_the_form_reaches_the_tokens(clip, tmp_path):
    """The row of a class is the start, the context and the literal text with its period, as the tokenizer reads it."""
    file = written(tmp_path, {"hot dog": ["dark stripes"]})
    pairs = {"MODE": "AS", "FILE": str(file), "FORM": "is/has"}
    cfg = setup_config([], [(f"TRAINER.DESCRIPTIONS.{key}", value) for key, value in pairs.items()], [LEARNERS])
    dataset = Dataset("Food", tmp_path, (Datum("a", 0),), (), (Datum("b", 0),), ("hot_dog",))
    texts = build_texts(cfg.TRAINER.DESCRIPTIONS, dataset)
    learner = LEARNERS["CoOp"].build(clip, texts, np.random.default_rng(0), n_ctx=2)
    expected = clip.tokenizer.encode("hot dog, which is/has dark stripes.")
    assert learner.rows.ids[0, 3 : 3 + len(expected)].tolist() == expected


def test_names_match_in_any_case_and_with_underscores(tmp_path):
    """Look-up is by lower-case name with underscores as spaces, in the order of the classes."""
    file = written(tmp_path, {"Hot Dog": ["b"], "CAT": ["a", "c"]})
    assert read_descriptions(file, ("cat", "hot_dog")) == [["a", "c"], ["b"]]


def test_all_faults_of_a_file_are_reported_at_once(tmp_path):
    """Row 26: missing classes, doubled entries, wrong types, empty lists and empty texts, in one error."""
    file = written(tmp_path, {"cat": [], "Cat": ["x"], "dog": "fur", "cow": [1], "owl": ["", "eyes"]})
    with pytest.raises(DataError) as error:
        read_descriptions(file, ("cat", "dog", "cow", "owl", "yak", "gnu"))
    for fault in ("'cat' holds an empty list", "'Cat' stands twice", "'dog' must hold", "'cow' must hold",
                  "'owl' holds an empty description", "'yak' has no entry", "'gnu' has no entry", "7 faults"):
        assert fault in str(error.value)


@pytest.mark.parametrize("content", ["[]", "{", ""])
def test_a_file_of_another_form_is_refused(tmp_path, content):
    """Something that is not a JSON object is one error with the file's name."""
    with pytest.raises(DataError, match=r"descriptions\.json"):
        read_descriptions(written(tmp_path, content), ("cat",))


@pytest.mark.parametrize("mode", ["AS", "AE"])
def test_texts_and_matrix(tmp_path, mode):
    """One phrase a description, in the order of the classes, and a matrix of shares."""
    file = written(tmp_path, {"cat": ["fur", "a tail"], "dog": ["teeth"]})
    cfg = setup_config([], [("TRAINER.DESCRIPTIONS.MODE", mode), ("TRAINER.DESCRIPTIONS.FILE", str(file))], [LEARNERS])
    dataset = Dataset("Pets", tmp_path, (Datum("a", 0),), (), (Datum("b", 0),), ("cat", "dog"))
    texts = build_texts(cfg.TRAINER.DESCRIPTIONS, dataset)
    assert texts.phrases == ("cat, which has fur", "cat, which is a tail", "dog, which has teeth")
    assert torch.equal(texts.averaging.matrix, torch.tensor([[0.5, 0.5, 0], [0, 0, 1]], dtype=torch.float64))
    assert texts.averaging.normalize == (mode == "AE")


@pytest.mark.parametrize("pair", [("TRAINER.DESCRIPTIONS.MODE", "AE"), ("TRAINER.DESCRIPTIONS.FILE", "x.json")])
def test_mode_and_file_go_together(pair):
    """A mode without a file, or a file without a mode, is an error before anything loads."""
    with pytest.raises(ConfigError, match=r"TRAINER\.DESCRIPTIONS"):
        check_descriptions(setup_config([], [pair], [LEARNERS]).TRAINER.DESCRIPTIONS)


@pytest.mark.parametrize("name", ["VPT", "ZeroShot"])
def test_descriptions_for_a_learner_of_a_fixed_template_are_refused(clip, tmp_path, name):
    """VPT and ZeroShot would ignore them: an error that names both keys, before anything is computed."""
    file = written(tmp_path, {"cat": ["fur"], "dog": ["teeth"]})
    dataset = Dataset("Pets", tmp_path, (Datum("a", 0),), (), (Datum("b", 0),), ("cat", "dog"))
    pairs = [("TRAINER.DESCRIPTIONS.MODE", "AS"), ("TRAINER.DESCRIPTIONS.FILE", str(file)), ("TRAINER.VPT.PROMPT_DEPTH", "1")]
    check_learners(setup_config([], [*pairs, ("TRAINER.NAME", "CoOp")], [LEARNERS]), clip, dataset)
    with pytest.raises(ConfigError, match=rf"TRAINER\.DESCRIPTIONS.*{name}"):
        check_learners(setup_config([], [*pairs, ("TRAINER.NAME", name)], [LEARNERS]), clip, dataset)
