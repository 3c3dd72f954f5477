"""Everything drawn that is not a glyph: named colors, closed shapes and textures."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

COLORS: dict[str, tuple[int, int, int]] = {
    "black": (12, 12, 12),
    "white": (245, 245, 245),
    "gray": (128, 128, 128),
    "red": (215, 40, 40),
    "green": (45, 160, 60),
    "blue": (40, 70, 205),
    "yellow": (240, 220, 50),
    "orange": (240, 140, 30),
    "purple": (130, 50, 160),
    "pink": (245, 150, 190),
    "brown": (115, 70, 35),
    "cyan": (60, 205, 215),
}


def _regular(n_corners: int, inner: float = 1.0, turn: float = -90.0) -> Floats:
    """Return the corners `[k, 2]` of a polygon; with `inner` below 1 every second corner is pulled in, as on a star."""
    n_points = n_corners if inner == 1.0 else 2 * n_corners
    angles = np.radians(turn + 360 * np.arange(n_points) / n_points)
    radii = np.where(np.arange(n_points) % 2 == 0, 0.5, 0.5 * inner)
    return (0.5 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32)


def _polygon(corners: str) -> Floats:
    """Return the corners `[k, 2]` of a polygon given in hundredths, such as "02,26 98,26 98,74"."""
    return np.array([corner.split(",") for corner in corners.split()], dtype=np.float32) / 100


def _heart() -> Floats:
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([0.5 + x / 34, 0.45 - y / 34], axis=1).astype(np.float32)


def _crescent() -> Floats:
    outer = np.radians(np.linspace(-70, -290, 14))
    inner = np.radians(np.linspace(-290, -70, 14))
    back = np.stack([0.5 + 0.48 * np.cos(outer), 0.5 + 0.48 * np.sin(outer)], axis=1)
    front = np.stack([0.66 + 0.34 * np.cos(inner), 0.5 + 0.45 * np.sin(inner)], axis=1)
    return np.concatenate([back, front]).astype(np.float32)


# Corners [k, 2] of each closed outline in the unit square.
SHAPES: dict[str, Floats] = {
    "circle": _regular(24),
    "square": _regular(4, turn=-45),
    "triangle": _regular(3),
    "diamond": _regular(4),
    "pentagon": _regular(5),
    "hexagon": _regular(6),
    "star": _regular(5, inner=0.45),
    "cross": _polygon("35,02 65,02 65,35 98,35 98,65 65,65 65,98 35,98 35,65 02,65 02,35 35,35"),
    "arrow": _polygon("02,36 55,36 55,12 98,50 55,88 55,64 02,64"),
    "heart": _heart(),
    "crescent": _crescent(),
    "rectangle": _polygon("02,26 98,26 98,74 02,74"),
}


def _wave(phase: Floats) -> Floats:
    """Return a softened square wave in [0, 1] of period 1."""
    return np.clip(0.5 + 2.5 * np.sin(2 * np.pi * phase), 0, 1)


def _distance_to_cell_center(x: Floats, y: Floats) -> Floats:
    return np.hypot(x % 1 - 0.5, y % 1 - 0.5)


def _bricks(x: Floats, y: Floats) -> Floats:
    row = np.floor(y)
    mortar = (y % 1 < 0.22) | ((x / 2 + 0.5 * (row % 2)) % 1 < 0.12)
    return 1 - mortar.astype(np.float32)


def _grid(x: Floats, y: Floats) -> Floats:
    return ((x % 1 < 0.25) | (y % 1 < 0.25)).astype(np.float32)


# Each takes pixel coordinates in units of the pattern's period and returns the foreground's coverage in [0, 1].
TEXTURES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "horizontal stripes": lambda x, y: _wave(y),
    "vertical stripes": lambda x, y: _wave(x),
    "diagonal stripes": lambda x, y: _wave((x + y) / 1.4),
    "dots": lambda x, y: np.clip(3 - 10 * _distance_to_cell_center(x, y), 0, 1),
    "checks": lambda x, y: ((np.floor(x) + np.floor(y)) % 2).astype(np.float32),
    "waves": lambda x, y: _wave(y + 0.35 * np.sin(np.pi * x)),
    "zigzags": lambda x, y: _wave(y + np.abs(x % 2 - 1)),
    "rings": lambda x, y: _wave(np.hypot(x - 2.5, y - 2.5)),
    "rays": lambda x, y: _wave(np.arctan2(y - 2.5, x - 2.5) * 4 / np.pi),
    "bricks": _bricks,
    "a grid": _grid,
    "circles": lambda x, y: np.clip(2 - 10 * np.abs(_distance_to_cell_center(x, y) - 0.33), 0, 1),
}
