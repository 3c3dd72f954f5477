"""Stroke definitions of digits and letters, in a box of 100 x 100 with x to the right and y downward.

A glyph is a tuple of strokes. A stroke is its control points and whether they are joined by a smooth curve. Points are
written as text, "20,06 80,06", so that a definition reads like the path of a pen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stroke:
    """One movement of the pen: `points` is float32 `[n, 2]` in the unit square."""

    points: NDArray[np.float32]
    smooth: bool


Glyph = tuple[Stroke, ...]


def _points(path: str) -> NDArray[np.float32]:
    return np.array([pair.split(",") for pair in path.split()], dtype=np.float32) / 100


def line(path: str) -> Stroke:
    """Return a stroke with straight pieces from point to point."""
    return Stroke(_points(path), smooth=False)


def curve(path: str) -> Stroke:
    """Return a stroke that passes smoothly through the points."""
    return Stroke(_points(path), smooth=True)


def oval(x: float, y: float, x_radius: float, y_radius: float, start: float = 0, stop: float = 360) -> Stroke:
    """Return an arc of an ellipse. Angles are in degrees, from 0 at the right, clockwise as seen on the image."""
    angles = np.radians(np.linspace(start, stop, max(4, round(abs(stop - start) / 40) + 1)))
    points = np.stack([x + x_radius * np.cos(angles), y + y_radius * np.sin(angles)], axis=1) / 100
    return Stroke(points.astype(np.float32), smooth=True)


# The plainest way to write each digit comes first: StreamSettings.digit_variants says how many of them are drawn.
DIGITS: dict[str, tuple[Glyph, ...]] = {
    "zero": (
        (oval(50, 50, 31, 45, -90, 270),),
        (oval(50, 50, 22, 46, -90, 270),),
        (oval(50, 52, 36, 36, -60, 300),),
    ),
    "one": (
        (line("32,26 52,05 52,95"),),
        (line("50,04 50,96"),),
        (line("32,26 52,05 52,95"), line("28,95 76,95")),
        (line("58,04 44,96"),),
    ),
    "two": (
        (curve("22,27 34,09 55,05 74,18 72,40 48,68 20,95"), line("20,95 80,95")),
        (curve("22,27 34,09 55,05 74,18 72,40 52,66 30,88 18,90 22,78 40,82 62,95 82,90"),),
        (curve("25,12 55,05 72,22 62,52 25,95"), line("25,95 75,92")),
    ),
    "three": (
        (curve("22,17 42,05 68,10 72,28 60,43 42,47"), curve("42,47 66,52 77,70 66,90 42,96 20,84")),
        (line("22,07 74,07 46,42"), curve("46,42 70,48 78,68 66,90 42,96 20,84")),
        (curve("25,10 60,06 66,26 40,46"), curve("40,46 72,56 68,86 45,96 25,90")),
    ),
    "four": (
        (line("64,95 64,05 20,66 86,66"),),
        (line("28,06 22,54 82,54"), line("70,05 66,95")),
        (curve("30,08 20,45 42,60 68,48"), line("72,08 66,95")),
    ),
    "five": (
        (line("76,06 30,06 27,45"), curve("27,45 52,37 74,48 78,70 64,91 42,96 20,86")),
        (curve("76,10 50,08 32,14 34,40 60,52 70,74 54,92 26,90"),),
        (line("30,08 28,46"), curve("28,46 58,42 72,66 58,92 26,94"), line("30,08 76,06")),
    ),
    "six": (
        (curve("70,07 46,20 29,46 24,70 36,92 58,95 75,80 72,60 54,51 34,58 25,74"),),
        (curve("58,04 40,30 32,66 42,92 60,90 66,70 52,60 36,72"),),
        (line("62,05 30,60"), oval(50, 72, 23, 23, -150, 210)),
    ),
    "seven": (
        (line("20,06 80,06 42,95"),),
        (line("20,06 78,06 46,95"), line("34,50 74,50")),
        (curve("20,16 36,06 56,10 78,06 60,44 46,95"),),
        (line("24,22 24,08 78,08 50,95"),),
    ),
    "eight": (
        (oval(50, 27, 22, 22, 90, 450), oval(50, 72, 27, 24, -90, 270)),
        (curve("70,14 48,04 30,18 38,38 62,58 72,80 50,96 28,80 38,58 64,38 70,14"),),
        (oval(50, 26, 16, 21, 90, 450), oval(50, 72, 18, 24, -90, 270)),
    ),
    "nine": (
        (oval(49, 30, 25, 25, 0, 360), curve("74,30 74,60 64,82 40,95")),
        (oval(48, 28, 22, 23, 0, 360), line("70,28 68,96")),
        (curve("72,16 48,05 28,24 38,46 62,42 72,16 70,58 52,96"),),
    ),
}

LETTERS: dict[str, Glyph] = {
    "a": (line("12,95 50,05 88,95"), line("27,62 73,62")),
    "b": (line("22,05 22,95"), curve("22,05 62,08 68,28 55,46 22,48"), curve("22,48 66,52 76,72 62,93 22,95")),
    "c": (oval(54, 50, 36, 45, -45, -315),),
    "d": (line("22,05 22,95"), curve("22,05 62,12 80,50 62,88 22,95")),
    "e": (line("76,05 24,05 24,95 78,95"), line("24,50 66,50")),
    "f": (line("78,05 24,05 24,95"), line("24,50 66,50")),
    "g": (oval(52, 50, 36, 45, -45, -315), line("78,82 78,55 55,55")),
    "h": (line("22,05 22,95"), line("78,05 78,95"), line("22,50 78,50")),
    "i": (line("50,05 50,95"), line("32,05 68,05"), line("32,95 68,95")),
    "j": (curve("66,05 66,68 58,90 40,95 24,82"), line("45,05 86,05")),
    "k": (line("24,05 24,95"), line("76,05 24,55"), line("40,42 80,95")),
    "l": (line("26,05 26,95 78,95"),),
    "m": (line("12,95 18,05 50,62 82,05 88,95"),),
    "n": (line("22,95 22,05 78,95 78,05"),),
    "o": (oval(50, 50, 42, 42, -90, 270),),
    "p": (line("24,95 24,05"), curve("24,05 66,08 76,30 62,52 24,55")),
    "q": (oval(50, 48, 38, 42, -90, 270), line("58,66 88,98")),
    "r": (line("24,95 24,05"), curve("24,05 66,08 74,28 60,50 24,53"), line("48,53 80,95")),
    "s": (curve("78,18 56,05 30,10 24,30 48,48 74,64 76,84 52,96 22,84"),),
    "t": (line("14,05 86,05"), line("50,05 50,95")),
    "u": (curve("22,05 22,62 30,88 50,95 70,88 78,62 78,05"),),
    "v": (line("14,05 50,95 86,05"),),
    "w": (line("08,05 28,95 50,35 72,95 92,05"),),
    "x": (line("18,05 82,95"), line("82,05 18,95")),
    "y": (line("16,05 50,50 84,05"), line("50,50 50,95")),
    "z": (line("20,05 80,05 20,95 80,95"), line("32,50 68,50")),
}
