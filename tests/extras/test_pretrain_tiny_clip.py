"""The drawn stream, the training loop, and the shipped tiny CLIP."""

import gzip
import json
import math
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors import safe_open

from extras.pretrain_tiny_clip import captions, evaluate, pretrain, vocabulary
from extras.pretrain_tiny_clip.bank import Bank
from extras.pretrain_tiny_clip.glyphs import DIGITS, LETTERS
from extras.pretrain_tiny_clip.loss import contrastive_loss, encode_short_text
from extras.pretrain_tiny_clip.scenes import SHAPES, TEXTURES
from extras.pretrain_tiny_clip.stream import COLOR_NAMES, CONCEPTS, Example, StreamSettings, draw_example

MODELS = Path(__file__).parents[2] / "configs" / "models"
N_PARAMETERS = 1_780_737
NAMES = {"digit": DIGITS, "letter": LETTERS, "shape": SHAPES, "texture": TEXTURES, "plain": ("",)}


def examples(seed: int, n_examples: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [draw_example(StreamSettings(), rng) for _ in range(n_examples)]


@pytest.fixture(scope="module")
def tokenizer() -> SimpleTokenizer:
    return vocabulary.load_tokenizer(MODELS / "tiny_clip_bpe.txt.gz")


@pytest.fixture(scope="module")
def shipped_model() -> CLIP:
    model, _ = evaluate.load_shipped(MODELS)
    return model


def global_states() -> tuple[str, bytes, int, bytes]:
    """Return the states of `random`, numpy's legacy generator (its words and its place in them) and torch."""
    _, words, place, *_ = np.random.get_state()  # noqa: NPY002, the legacy generator is what is watched
    return repr(random.getstate()), words.tobytes(), place, torch.get_rng_state().numpy().tobytes()


def three_steps(tokenizer: SimpleTokenizer) -> list[float]:
    schedule = pretrain.Schedule(n_steps=3, batch_size=16, n_bank=48, n_redrawn=4)
    model, heads = pretrain.new_model(MODELS / "tiny_clip.json", seed=0)
    bank = Bank(schedule.n_bank, StreamSettings(), tokenizer, seed=0)
    return list(pretrain.train(model, heads, bank, schedule))


def test_the_stream_repeats_under_the_same_seed():
    """Two streams of one seed have the same images and captions."""
    for one, other in zip(examples(3, 40), examples(3, 40), strict=True):
        assert np.array_equal(one.image, other.image) and one[1:] == other[1:]


def test_the_stream_differs_under_another_seed():
    """Two streams of different seeds have different captions."""
    assert [example.caption for example in examples(0, 20)] != [example.caption for example in examples(1, 20)]


def test_drawing_and_training_leave_the_global_generators_alone(tokenizer):
    """The global states of `random`, NumPy and torch do not change."""
    before = global_states()
    three_steps(tokenizer)
    assert global_states() == before


def test_images_are_32_by_32_rgb_bytes_and_not_constant():
    """Every image has the model's size and type, and more than one value."""
    for example in examples(5, 200):
        assert example.image.shape == (32, 32, 3) and example.image.dtype == np.uint8
        assert example.image.min() < example.image.max()


def test_labels_name_a_concept_and_two_colors():
    """Every concept and every color turns up within 2,000 examples, and no label is out of range."""
    drawn = examples(0, 2000)
    assert {example.concept for example in drawn} == set(range(len(CONCEPTS)))
    assert {example.foreground for example in drawn} == set(range(len(COLOR_NAMES)))
    assert {example.background for example in drawn} == set(range(len(COLOR_NAMES)))


@pytest.mark.parametrize("kind", captions.TEMPLATES)
def test_every_template_fits_the_context(kind, tokenizer):
    """The longest filling of each template, with a quality word and a period, leaves room for both end tokens."""

    def longest(words: Iterable[str]) -> str:
        return max(words, key=lambda word: len(tokenizer.encode(word)))

    fillings = {
        "name": longest(NAMES[kind]),
        "description": longest(captions.DIGIT_DESCRIPTIONS.values()),
        "weight": longest(["thin", "thick"]),
        "fill": longest(["filled", "hollow"]),
        "fg": longest(COLOR_NAMES),
        "bg": longest(COLOR_NAMES),
    }
    for template in captions.TEMPLATES[kind]:
        n_tokens = len(tokenizer.encode(template.format(**fillings) + ", pixelated.")) + 2
        assert n_tokens < vocabulary.CONTEXT_LENGTH, template


def test_the_special_tokens_are_the_last_two(tokenizer):
    """The model reads its text output at the largest id, so the end of text must be it."""
    assert tokenizer.vocab_size == vocabulary.VOCAB_SIZE
    assert tokenizer.all_special_ids == [vocabulary.VOCAB_SIZE - 2, vocabulary.VOCAB_SIZE - 1]


def test_the_model_has_a_row_for_every_token(shipped_model, tokenizer):
    """The model config and the merges file agree on vocabulary and context length."""
    assert shipped_model.vocab_size == tokenizer.vocab_size
    assert shipped_model.context_length == tokenizer.context_length


def test_any_text_encodes_below_the_vocabulary_size(tokenizer):
    """Words that the merges no longer hold fall apart into known pieces and come back whole."""
    text = "a photo of the digit seven. an abyssinian cat, crème brûlée & 42!"
    ids = tokenizer.encode(text)
    assert max(ids) < vocabulary.VOCAB_SIZE - 2
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")


def test_the_shipped_merges_are_what_the_script_writes():
    """Writing the merges again gives the same text; compressed bytes are compared only within one zlib."""
    shipped = (MODELS / "tiny_clip_bpe.txt.gz").read_bytes()
    assert gzip.decompress(shipped) == gzip.decompress(vocabulary.shortened_merges())
    assert vocabulary.shortened_merges() == vocabulary.shortened_merges()


def test_captions_shared_in_a_batch_are_no_negatives():
    """Logits that fit the captions perfectly give a loss of 0, apart from the choice among images with the same caption."""
    caption_of = torch.tensor([0, 0, 1])
    logits = torch.tensor([[50.0, -50.0], [50.0, -50.0], [-50.0, 50.0]])
    loss = contrastive_loss(logits, caption_of, torch.tensor([2, 1]))
    assert loss.item() == pytest.approx(2 / 3 * math.log(2) / 2, abs=1e-5)


def test_short_text_encoding_equals_open_clip(shipped_model, tokenizer):
    """Leaving out the padding changes the text features by rounding only."""
    tokens = tokenizer(["a photo of the digit seven.", "7", "a thin red letter k on a blue background"])
    with torch.no_grad():
        torch.testing.assert_close(
            encode_short_text(shipped_model, tokens), shipped_model.encode_text(tokens), rtol=1e-4, atol=1e-5
        )


def test_three_training_steps_give_finite_losses(tokenizer):
    """The loop runs on a tiny bank, redraws part of it and yields one finite loss a step."""
    losses = three_steps(tokenizer)
    assert len(losses) == 3 and all(map(math.isfinite, losses))


def test_training_repeats_under_the_same_seed(tokenizer):
    """Two short trainings of one seed have the same losses."""
    assert three_steps(tokenizer) == three_steps(tokenizer)


def test_the_shipped_model_is_fp32_and_has_the_stated_size(shipped_model):
    """open_clip reads the fp16 file into a full-precision model of 1.78 M parameters."""
    assert sum(parameter.numel() for parameter in shipped_model.parameters()) == N_PARAMETERS
    assert {parameter.dtype for parameter in shipped_model.parameters()} == {torch.float32}


def test_the_weights_carry_their_preprocessing():
    """The file's header says mean, std, interpolation and size."""
    with safe_open(MODELS / "tiny_clip.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["preprocess_cfg"]) == pretrain.PREPROCESS


def test_saved_weights_read_back_as_their_fp16_rounding(tmp_path, tokenizer):
    """Saving and loading again changes nothing but the precision."""
    model, _ = pretrain.new_model(MODELS / "tiny_clip.json", seed=0)
    pretrain.save_weights(model, tmp_path / "tiny_clip.safetensors")
    for name in ("tiny_clip.json", "tiny_clip_bpe.txt.gz"):
        (tmp_path / name).write_bytes((MODELS / name).read_bytes())
    loaded, _ = evaluate.load_shipped(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float()), name


def test_zero_shot_on_real_digits_is_real_but_imperfect(shipped_model, tokenizer):
    """Between 45 and 80 % of the 1,797 handwritten digits are named rightly: a prior with room to learn."""
    images, labels = evaluate.real_digits()
    assert len(images) == 1797
    result = evaluate.zero_shot(shipped_model, tokenizer, images, labels, evaluate.TEMPLATES[0])
    assert 0.45 <= result.accuracy <= 0.80
