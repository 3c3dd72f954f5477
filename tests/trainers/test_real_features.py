"""CoOp on real ViT-B/32 features trains to where it should (skipped without the data)."""

import pytest

from benchmarks import surrogate
from benchmarks.shots import REFERENCE, SEEDS, few_shot_accuracy

pytestmark = pytest.mark.skipif(not surrogate.DATA.exists(), reason="the real features are not there")


@pytest.fixture(scope="module")
def text_tower():
    return surrogate.load_text_tower()


def test_zero_shot_of_the_surrogate(text_tower):
    """The text tower is laid out and read as it was made: its zero-shot accuracy on Caltech101 is 74.9 %."""
    from dassl.config.setup import setup_config
    from trainers.registry import LEARNERS

    data = surrogate.load_features("caltech101")
    trainer = surrogate.build_feature_trainer(setup_config([], [], [LEARNERS]), text_tower, data)
    logits = trainer.predict(trainer.zero_shot(), "test").logits
    assert 100 * (logits.argmax(1) == data.dataset.labels("test")).double().mean() == pytest.approx(74.9, abs=0.3)


@pytest.mark.parametrize(("name", "shots", "recipe"), [
    *((name, shots, "steps") for name, cells in REFERENCE.items() for shots in cells), ("dtd", 1, "coop")])
def test_few_shot_coop_reaches_the_reference(text_tower, name, shots, recipe):
    """The mean over three seeds is within 2 points of the figure of the data's maker, with one recipe for all six settings."""
    data = surrogate.load_features(name)
    mean = sum(few_shot_accuracy(text_tower, data, shots, seed, recipe) for seed in SEEDS) / len(SEEDS)
    assert mean == pytest.approx(REFERENCE[name][shots], abs=2.0)
