"""Words: what each picture may be called.

A caption is a template filled with what was drawn. Every attribute is drawn before the caption is chosen, and a caption
names only some of them. So words, numerals, colors and styles all carry meaning, and no single phrase is needed for it.
"""

from collections.abc import Sequence

import numpy as np

NUMERALS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4",
    "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
}  # fmt: skip

DIGIT_DESCRIPTIONS = {
    "zero": "which is a closed oval",
    "one": "which is a single upright stroke",
    "two": "which has a curved top and a flat base",
    "three": "which has two bowls open to the left",
    "four": "which has an upright stroke and a crossbar",
    "five": "which has a flat top and a round belly",
    "six": "which has a loop at the bottom",
    "seven": "which has a flat top and a slanted stroke",
    "eight": "which has two stacked loops",
    "nine": "which has a loop at the top",
}

# "a" stands before every name, even "eight": people fill "a photo of a {}." with whatever the class is called.
DIGIT_TEMPLATES = (
    "a photo of the digit {name}",
    "a photo of the digit {name}",
    "a photo of a {name}",
    "a photo of a {name}",
    "a handwritten {name}",
    "a photo of the number {name}",
    "a drawing of the number {name}",
    "an image of the digit {name}",
    "the digit {name}",
    "{name}",
    "a {weight} {name}",
    "a {weight} handwritten digit {name}",
    "a {fg} {name}",
    "a {weight} {fg} {name}",
    "a {fg} digit {name} on a {bg} background",
    "a photo of a {fg} {name} on {bg}",
    "the number {name} written in {fg}",
    "a photo of the digit {name}, {description}",
    "a {name}, {description}",
)

LETTER_TEMPLATES = (
    "a photo of the letter {name}",
    "a photo of a {name}",
    "a handwritten {name}",
    "a drawing of the letter {name}",
    "the letter {name}",
    "a {weight} letter {name}",
    "a {fg} letter {name}",
    "a {fg} letter {name} on a {bg} background",
    "a {weight} {fg} {name}",
    "the letter {name} written in {fg}",
)

SHAPE_TEMPLATES = (
    "a photo of a {name}",
    "a drawing of a {name}",
    "a {fill} {name}",
    "a photo of a {fill} {name}",
    "a {fg} {name}",
    "a {fill} {fg} {name}",
    "a {fg} {name} on a {bg} background",
    "a photo of a {fill} {fg} {name} on {bg}",
    "an image of a {name}",
    "the shape of a {name}",
)

TEXTURE_TEMPLATES = (
    "a photo of {name}",
    "a pattern of {name}",
    "{fg} {name}",
    "{fg} {name} on {bg}",
    "a texture of {name} in {fg} and {bg}",
    "an image of {name}",
    "a photo of {fg} {name} on a {bg} background",
    "a surface with {name}",
    "{name}",
    "a {fg} and {bg} pattern of {name}",
)

PLAIN_TEMPLATES = (
    "a plain {bg} image",
    "a photo of nothing but {bg}",
    "a {bg} background",
    "an empty {bg} surface",
    "the color {bg}",
)

TEMPLATES: dict[str, Sequence[str]] = {
    "digit": DIGIT_TEMPLATES,
    "letter": LETTER_TEMPLATES,
    "shape": SHAPE_TEMPLATES,
    "texture": TEXTURE_TEMPLATES,
    "plain": PLAIN_TEMPLATES,
}


def name_of_digit(word: str, rng: np.random.Generator) -> str:
    """Return the digit's word or, in two of five captions, its numeral."""
    return NUMERALS[word] if rng.random() < 0.4 else word


def caption(kind: str, attributes: dict[str, str], quality: str, rng: np.random.Generator) -> str:
    """Return one caption of a picture of this kind.

    `attributes` fill the template's fields. `quality` is a word such as "blurry", or empty: it is named in half of the
    captions of a picture that has it. Half of the captions end in a period.
    """
    templates = TEMPLATES[kind]
    text = templates[rng.integers(len(templates))].format(**attributes)
    if quality and rng.random() < 0.5:
        text = f"{text}, {quality}"
    return text + ("." if rng.random() < 0.5 else "")
