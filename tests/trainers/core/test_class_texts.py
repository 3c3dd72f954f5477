"""Classes whose texts are the same tokens: no learner can tell their images apart, so both are named before the training."""

import re
from pathlib import Path

import pytest
import torch

from dassl.config.setup import setup_config
from dassl.data.dataset import Dataset, Datum
from dassl.utils.errors import UserError
from tests.trainers.clip.families import text_clip
from trainers.core.build import check_learners
from trainers.registry import LEARNERS

LONG = " ".join(["very"] * 80)


def check(clip, names, *pairs) -> None:
    dataset = Dataset("Toy", Path("nowhere"), (Datum("a.png", 0),), (), (), names)
    depths = [(f"TRAINER.{key}", "all") for key in ("VPT.PROMPT_DEPTH", "IVLP.PROMPT_DEPTH_TEXT")]
    check_learners(setup_config([], [*depths, *pairs], [LEARNERS]), clip, dataset)


@pytest.mark.parametrize("learner", ["ZeroShot", "CoOp", "VPT", "MaPLe", "IVLP", "DualPrompt"])
@pytest.mark.parametrize(("one", "other"), [
    ("R&D", "R&amp;D"), ("baker's dozen", "baker\u2019s dozen"), ("Cat", "cat"), (f"{LONG} cat", f"{LONG} dog"),
    ("sea_lion", "sea lion")])
def test_different_names_of_one_text_are_named(clip, one, other, learner):
    """HTML entities, curly apostrophes, case, underscores, and what only differs beyond the context length."""
    said = f"classes {one!r} and {other!r} have the same text after tokenization by {learner}"
    with pytest.raises(UserError, match=re.escape(said)):
        check(clip, (one, "a bird", other), ("TRAINER.NAME", learner))


def test_a_learner_with_a_longer_context_is_looked_at_by_itself(clip):
    """Names that fit into zero-shot CLIP's template may be too long after 60 context tokens."""
    names = [" ".join(["very"] * 30) + f" {end}" for end in ("cat", "dog")]
    check(clip, names, ("TRAINER.NAME", "CoOp"))
    with pytest.raises(UserError, match="tokenization by CoOp"):
        check(clip, names, ("TRAINER.NAME", "CoOp"), ("TRAINER.COOP.N_CTX", "60"))


def test_a_name_that_two_classes_have_is_no_error(clip):
    """ImageNet's published names contain some. There is a warning when the data set is built."""
    check(clip, ("maillot", "cat", "maillot"))


@pytest.mark.parametrize(("name", "warned"), [("!!!", True), ("__", True), ("C++", False)])
def test_a_name_that_is_nothing_to_the_tokenizer_is_warned_of(name, warned, caplog):
    """Some tokenizers drop punctuation. One such class can still be told apart, but its name has no effect."""
    check(text_clip("SigLIP", torch.float32), (name, "cat"), ("TRAINER.NAME", "CoOp"))
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"class name {name!r} is nothing to the tokenizer of SigLIP; give the class another name"] * warned


def test_names_that_differ_pass(clip):
    check(clip, ("cat", "cats", "c at", "black cat"))


def test_descriptions_tell_classes_apart_or_not(clip, tmp_path):
    """A class is the set of all its texts: in any order, two classes with the same texts are equal."""
    file = tmp_path / "texts.json"
    pairs = [("TRAINER.DESCRIPTIONS.MODE", "AS"), ("TRAINER.DESCRIPTIONS.FILE", str(file)), ("TRAINER.NAME", "CoOp"),
             ("TRAINER.ZEROSHOT.TEMPLATE", "dataset")]
    file.write_text('{"R&D": ["big", "red"], "R&amp;D": ["red", "big"]}')
    with pytest.raises(UserError, match="R&D"):
        check(clip, ("R&D", "R&amp;D"), *pairs)
    file.write_text('{"cat": ["big", "red"], "dog": ["red", "big"]}')
    check(clip, ("cat", "dog"), *pairs)
