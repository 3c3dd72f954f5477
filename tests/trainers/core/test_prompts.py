"""Token rows: where the context, the name and the end token stand."""

import logging

import pytest
import torch

from dassl.utils.errors import ConfigError, UserError
from trainers.core.prompts import TokenRows
from trainers.core.token_rows import template_rows, token_rows, word_ids

CLASSNAMES = ["cat", "forest green golden retriever", "x-ray fish", "african_hunting_dog"]


def tokens_of(rows: TokenRows, row: int) -> list[int]:
    return rows.ids[row, : rows.ends[row] + 1].tolist()


@pytest.mark.parametrize("classname", CLASSNAMES)
@pytest.mark.parametrize(("position", "text"), [
    ("end", "a photo of a {}."), ("middle", "a photo {} of a."), ("front", "{} a photo of a.")])
def test_filling_the_slots_with_words_gives_the_tokenized_sentence(clip, classname, position, text):
    """With the ids of "a photo of a" in its slots, a row is what the tokenizer makes of the whole sentence."""
    rows = token_rows(clip.tokenizer, [classname], 4, position)
    filled = rows.ids.scatter(1, rows.slots, word_ids(clip.tokenizer, "a photo of a")[None])
    assert filled.tolist() == clip.tokenizer([text.format(classname.replace("_", " "))]).tolist()


@pytest.mark.parametrize("n_context", [1, 3, 5, 16])
def test_the_middle_splits_an_odd_context_with_the_smaller_half_in_front(clip, n_context):
    """Of n context tokens, n // 2 stand before the name, as in the CoOp paper's code."""
    rows = token_rows(clip.tokenizer, ["cat"], n_context, "middle")
    name_at = tokens_of(rows, 0).index(clip.tokenizer.encode("cat")[0])
    assert (rows.slots[0] < name_at).sum() == n_context // 2


def test_the_end_is_the_end_token(clip):
    """`ends` points at the end-of-text token of every row, whatever the length of its name."""
    rows = token_rows(clip.tokenizer, CLASSNAMES, 16)
    ends = rows.ids[torch.arange(4), rows.ends]
    assert (ends == clip.tokenizer.eot_token_id).all() and rows.ends.unique().numel() > 1


def test_slots_are_distinct_and_hold_nothing_else(clip):
    """The context's positions are distinct and lie between start and end."""
    rows = token_rows(clip.tokenizer, CLASSNAMES, 7, "middle")
    for slots, end in zip(rows.slots.tolist(), rows.ends.tolist(), strict=True):
        assert len(set(slots)) == 7 and min(slots) > 0 and max(slots) < end


def test_a_name_too_long_is_cut_with_a_warning_and_keeps_its_period(clip, caplog):
    """Row 27: a class name over the context length loses its last tokens and the log names it; the period stays."""
    long_name = "word " * 100
    with caplog.at_level(logging.WARNING):
        rows = token_rows(clip.tokenizer, [long_name, "cat"], 16)
    assert "has 100 tokens" in caplog.text
    assert rows.ends.tolist() == [76, 19]
    assert rows.ids[0, 75] == clip.tokenizer.encode(".")[0]


def test_names_that_differ_in_case_or_underscore_alone_keep_their_rows(clip):
    """Row 27: two spellings of one name are two classes with two rows."""
    assert len(token_rows(clip.tokenizer, ["hot dog", "hot_dog", "Hot Dog"], 4).ids) == 3


def test_a_context_that_leaves_no_room_for_a_name_is_an_error(clip):
    """77 tokens hold start, context, one token of a name, the period and the end."""
    token_rows(clip.tokenizer, ["cat"], 73)
    with pytest.raises(UserError, match="no room"):
        token_rows(clip.tokenizer, ["cat"], 74)


def test_template_rows_are_the_tokenizers_own(clip):
    """A template is filled with each name, underscores read as spaces, and has no slot."""
    rows = template_rows(clip.tokenizer, ["cat", "hot_dog"], "a photo of a {}.")
    assert rows.ids.tolist() == clip.tokenizer(["a photo of a cat.", "a photo of a hot dog."]).tolist()
    assert rows.slots.shape == (2, 0)


def test_a_template_too_long_is_cut_with_a_warning(clip, caplog):
    """The tokenizer would cut it silently. Texts that just fit are not mentioned."""
    full, over = (" ".join(["word"] * number) + " {}" for number in (74, 75))
    template_rows(clip.tokenizer, ["cat"], full)
    assert not caplog.records
    rows = template_rows(clip.tokenizer, ["cat", "dog"], over)
    assert [record.getMessage() for record in caplog.records] == [
        f"{over.format(name)!r} has 76 tokens; only the first 75 fit" for name in ("cat", "dog")]
    assert rows.ends.tolist() == [76, 76]


@pytest.mark.parametrize("template", ["a photo", "{} and {}"])
def test_a_template_without_one_place_for_the_name_is_refused(clip, template):
    """Otherwise every class would have the same text."""
    with pytest.raises(ConfigError, match=r"one \{\}"):
        template_rows(clip.tokenizer, ["cat"], template)
