"""The page of large pools: what the script computes from its rates, and arithmetic that follows known figures."""

from pathlib import Path

import pytest

from benchmarks import costs

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


def test_the_page_is_what_the_script_writes():
    """`python -m benchmarks.costs > docs/scale.md`."""
    assert PAGE.read_text() == costs.page()


@pytest.mark.parametrize(("patch", "giga"), [(32, 8.8), (16, 35.1)])
def test_operations_are_those_of_the_towers(patch, giga):
    """Twice open_clip's multiply-adds of the visual towers: 4.4e9 and 17.6e9."""
    assert costs.operations(patch) / 1e9 == pytest.approx(giga, rel=0.01)


def test_cards_are_no_faster_than_their_files_are_read(monkeypatch):
    """n cards are n times as fast as one. Without a card, the rate is the one measured on two cores."""
    assert costs.images_per_second("ViT-B/32", 8) == 8 * costs.images_per_second("ViT-B/32", 1)
    assert costs.images_per_second("ViT-B/16", 0) == 2 * costs.RATES["ViT-B/16"]
    monkeypatch.setitem(costs.RATES, "reading", 10.0)
    assert costs.images_per_second("ViT-B/32", 1) == 10 * costs.CORES


def test_selection_grows_by_what_is_read(monkeypatch):
    """At the measured size it gives the measured figure. `uherding` looks at the same number of images in any pool."""
    at = costs.MEASURED_AT
    for name, value in (("WIDTH", at["width"]), ("N_CLASSES", at["classes"]), ("N_LABELED", at["labeled"]),
                        ("N_QUERY", at["asked"])):
        monkeypatch.setattr(costs, name, value)
    assert {name: costs.growth(name, at["rows"]) for name in costs.SELECTION} == dict.fromkeys(costs.SELECTION, 1)
    assert costs.growth("margin", 10 * at["rows"]) == 10 and costs.growth("uherding", 10 * at["rows"]) == 1


@pytest.mark.parametrize(("seconds", "said"), [
    (3.14, "3.1 s"), (200, "3.3 min"), (7300, "2 h"), (1e6, "12 days"), (1e9, "12,000 days")])
def test_durations_have_two_digits(seconds, said):
    assert costs.duration(seconds) == said
