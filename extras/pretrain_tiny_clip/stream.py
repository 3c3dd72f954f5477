"""The endless stream of drawn images and their captions."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import draw
from .captions import DIGIT_DESCRIPTIONS, caption, name_of_digit
from .glyphs import DIGITS, LETTERS
from .scenes import COLORS, SHAPES, TEXTURES, Floats

KINDS = ("digit", "letter", "shape", "texture", "plain")
CONCEPTS = (*DIGITS, *LETTERS, *SHAPES, *TEXTURES, "plain")
COLOR_NAMES = tuple(COLORS)
# Colors are at least this far apart in RGB (0 to 255 a channel), so that every drawing can be seen.
MIN_COLOR_DISTANCE = 130


@dataclass(frozen=True)
class StreamSettings:
    """What is drawn, and how often. The digits' fields set how hard real handwriting is for the model."""

    kind_shares: tuple[float, ...] = (0.42, 0.15, 0.15, 0.25, 0.03)  # one for each of KINDS
    digit_variants: int = 2  # ways to write each digit, at most 4
    digit_white_on_black: float = 0.05  # share of the digits
    digit_low_resolution: float = 0.05  # share of the digits captured at 8 to 16 pixels
    other_low_resolution: float = 0.3  # the same for the other kinds


class Example(NamedTuple):
    """An image `uint8 [32, 32, 3]`, its caption, and the rows of its concept and colors in CONCEPTS and COLOR_NAMES."""

    image: NDArray[np.uint8]
    caption: str
    concept: int
    foreground: int
    background: int


class _Drawing(NamedTuple):
    coverage: Floats
    concept: str
    attributes: dict[str, str]


def _pick(names: tuple[str, ...], rng: np.random.Generator) -> str:
    return names[rng.integers(len(names))]


def _draw_glyph(kind: str, settings: StreamSettings, rng: np.random.Generator) -> _Drawing:
    word = _pick(tuple(DIGITS if kind == "digit" else LETTERS), rng)
    thickness = rng.uniform(1.2, 4.5)
    weight = "thin" if thickness < 2.5 else "thick"
    attributes = {"name": word, "weight": weight}
    glyph = LETTERS.get(word, ())
    if kind == "digit":
        variants = DIGITS[word][: settings.digit_variants]
        glyph = variants[rng.integers(len(variants))]
        attributes |= {"name": name_of_digit(word, rng), "description": DIGIT_DESCRIPTIONS[word]}
    return _Drawing(draw.coverage_of_glyph(glyph, thickness, rng.uniform(0.8, 2.5), rng), word, attributes)


def _draw_shape(rng: np.random.Generator) -> _Drawing:
    name = _pick(tuple(SHAPES), rng)
    filled = bool(rng.random() < 0.5)
    coverage = draw.coverage_of_shape(SHAPES[name], filled, rng.uniform(1.2, 4), rng.uniform(0.8, 2.5), rng)
    return _Drawing(coverage, name, {"name": name, "fill": "filled" if filled else "hollow"})


def _draw_texture(rng: np.random.Generator) -> _Drawing:
    name = _pick(tuple(TEXTURES), rng)
    return _Drawing(draw.coverage_of_texture(TEXTURES[name], rng), name, {"name": name})


def _drawing(kind: str, settings: StreamSettings, rng: np.random.Generator) -> _Drawing:
    if kind in ("digit", "letter"):
        return _draw_glyph(kind, settings, rng)
    if kind == "shape":
        return _draw_shape(rng)
    if kind == "texture":
        return _draw_texture(rng)
    return _Drawing(np.zeros(draw.SIZE**2, dtype=np.float32), "plain", {})


def _two_colors(rng: np.random.Generator) -> tuple[int, int]:
    """Return the rows of a foreground and a background color that can be told apart."""
    while True:
        foreground, background = rng.integers(len(COLOR_NAMES), size=2)
        difference = np.subtract(COLORS[COLOR_NAMES[foreground]], COLORS[COLOR_NAMES[background]])
        if np.linalg.norm(difference) >= MIN_COLOR_DISTANCE:
            return int(foreground), int(background)


def _shade_of(color: int, rng: np.random.Generator) -> Floats:
    return (np.array(COLORS[COLOR_NAMES[color]]) + rng.uniform(-18, 18, 3)).astype(np.float32)


def draw_example(settings: StreamSettings, rng: np.random.Generator) -> Example:
    """Return the next example of the stream; all chance comes from `rng`."""
    kind = KINDS[rng.choice(len(KINDS), p=settings.kind_shares)]
    drawing = _drawing(kind, settings, rng)
    foreground, background = _two_colors(rng)
    if kind == "digit" and rng.random() < settings.digit_white_on_black:
        foreground, background = COLOR_NAMES.index("white"), COLOR_NAMES.index("black")
    if kind == "plain":
        foreground = background
    image = draw.paint(drawing.coverage, _shade_of(foreground, rng), _shade_of(background, rng), rng)
    quality = ""
    if rng.random() < (settings.digit_low_resolution if kind == "digit" else settings.other_low_resolution):
        pixelated = bool(rng.random() < 0.3)
        image = draw.capture_at_low_resolution(image, int(rng.integers(8, 17)), pixelated)
        quality = "pixelated" if pixelated else "blurry"
    attributes = drawing.attributes | {"fg": COLOR_NAMES[foreground], "bg": COLOR_NAMES[background]}
    text = caption(kind, attributes, quality, rng)
    return Example(image, text, CONCEPTS.index(drawing.concept), foreground, background)
