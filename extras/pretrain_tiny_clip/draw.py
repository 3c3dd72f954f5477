"""Pixels: coverage maps of strokes, outlines and textures, and the finished 32 x 32 image."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .glyphs import Glyph
from .scenes import Floats

SIZE = 32
PIXEL_Y, PIXEL_X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32).reshape(2, -1) + np.float32(0.5)  # [1024] each

SAMPLES_PER_SPAN = 4
# Catmull-Rom: rows are the powers 0 to 3 of the place along a span, columns the four control points around it.
_CATMULL_ROM = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]], dtype=np.float32) / 2
_POWERS = np.vander(np.arange(SAMPLES_PER_SPAN, dtype=np.float32) / SAMPLES_PER_SPAN, 4, increasing=True)
_SPLINE = _POWERS @ _CATMULL_ROM  # [samples, 4]


def smooth_path(points: Floats) -> Floats:
    """Return a dense path `[m, 2]` through the control points `[n, 2]`, with `SAMPLES_PER_SPAN` points a span."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    neighbors = np.stack([padded[:-3], padded[1:-2], padded[2:-1], padded[3:]], axis=1)  # [n - 1, 4, 2]
    return np.concatenate([(_SPLINE @ neighbors).reshape(-1, 2), points[-1:]])


def random_affine(rng: np.random.Generator, min_scale: float) -> tuple[Floats, Floats]:
    """Return a matrix `[2, 2]` and an offset `[2]` that take the unit square to pixels, slightly turned and sheared."""
    turn = np.radians(rng.uniform(-8, 8))
    shear = rng.uniform(-0.12, 0.12)
    scale = SIZE * rng.uniform(min_scale, 0.95)
    aspect = rng.uniform(0.9, 1.1)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = scale * rotation @ np.array([[aspect, shear], [0, 1 / aspect]])
    # A large drawing stays inside the image: it may move by 10 % of the side, but not by more than the free margin.
    reach = min(0.1 * SIZE, (SIZE - scale) / 2 + 1)
    offset = SIZE / 2 + rng.uniform(-reach, reach, 2) - matrix @ np.array([0.5, 0.5])
    return matrix.astype(np.float32), offset.astype(np.float32)


def distance_to_segments(starts: Floats, ends: Floats) -> Floats:
    """Return the distance `[1024]` in pixels from every pixel to the nearest of the segments `[s, 2]`."""
    span = ends - starts
    squared_length = np.maximum((span**2).sum(axis=1), 1e-6)[:, None]
    to_x = PIXEL_X - starts[:, :1]  # [s, 1024]
    to_y = PIXEL_Y - starts[:, 1:]
    along = np.clip((to_x * span[:, :1] + to_y * span[:, 1:]) / squared_length, 0, 1)
    to_x -= along * span[:, :1]
    to_y -= along * span[:, 1:]
    return np.sqrt((to_x**2 + to_y**2).min(axis=0))


def is_inside(corners: Floats) -> NDArray[np.bool_]:
    """Return for every pixel `[1024]` whether it lies inside the closed polygon (even-odd rule)."""
    start_x, start_y = corners.T[:, :, None]
    end_x, end_y = np.roll(corners, -1, axis=0).T[:, :, None]
    crosses = (start_y > PIXEL_Y) != (end_y > PIXEL_Y)
    height = np.where(start_y == end_y, 1, end_y - start_y)
    crossing_x = start_x + (PIXEL_Y - start_y) * (end_x - start_x) / height
    return (crosses & (crossing_x > PIXEL_X)).sum(axis=0) % 2 == 1


def coverage_of_glyph(glyph: Glyph, thickness: float, softness: float, rng: np.random.Generator) -> Floats:
    """Return the ink `[1024]` in [0, 1] of a glyph with shaky control points. Thickness and softness are in pixels."""
    matrix, offset = random_affine(rng, min_scale=0.55)
    starts, ends = [], []
    for stroke in glyph:
        shaky = stroke.points + rng.normal(0, 0.018, stroke.points.shape).astype(np.float32)
        path = (smooth_path(shaky) if stroke.smooth else shaky) @ matrix.T + offset
        starts.append(path[:-1])
        ends.append(path[1:])
    distance = distance_to_segments(np.concatenate(starts), np.concatenate(ends))
    return np.clip(0.5 + (thickness / 2 - distance) / softness, 0, 1)


def coverage_of_shape(
    corners: Floats, filled: bool, thickness: float, softness: float, rng: np.random.Generator
) -> Floats:
    """Return the ink `[1024]` in [0, 1] of a closed shape, filled or as an outline."""
    matrix, offset = random_affine(rng, min_scale=0.45)
    placed = corners @ matrix.T + offset
    distance = distance_to_segments(placed, np.roll(placed, -1, axis=0))
    if filled:
        distance = np.where(is_inside(placed), -distance, distance)
        return np.clip(0.5 - distance / softness, 0, 1)
    return np.clip(0.5 + (thickness / 2 - distance) / softness, 0, 1)


def coverage_of_texture(texture: Callable[[Floats, Floats], Floats], rng: np.random.Generator) -> Floats:
    """Return the ink `[1024]` in [0, 1] of a texture with random period and place."""
    period = rng.uniform(5, 11)
    shift_x, shift_y = rng.uniform(0, 1, 2)
    return texture(PIXEL_X / period + shift_x, PIXEL_Y / period + shift_y).astype(np.float32)


def paint(coverage: Floats, foreground: Floats, background: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the image `[32, 32, 3]` of a coverage map in two colors (0 to 255), with a linear shade and noise."""
    image = background + coverage[:, None] * (foreground - background)  # [1024, 3]
    slope_x, slope_y = rng.uniform(-25, 25, 2)
    image += (slope_x * (PIXEL_X / SIZE - 0.5) + slope_y * (PIXEL_Y / SIZE - 0.5))[:, None]
    image += rng.uniform(0, 8) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image, 0, 255).astype(np.uint8).reshape(SIZE, SIZE, 3)


def capture_at_low_resolution(image: NDArray[np.uint8], side: int, pixelated: bool) -> NDArray[np.uint8]:
    """Return the image as seen by a camera of `side` x `side` pixels and scaled up again, smoothly or in blocks."""
    upscale = Image.Resampling.NEAREST if pixelated else Image.Resampling.BICUBIC
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small.resize((SIZE, SIZE), upscale))
