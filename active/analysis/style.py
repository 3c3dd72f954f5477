"""How figures look and are written: readable in grey print, on a phone and by colour-blind readers.

A method has the same colour, dash and marker in all figures that are made together. The colours are those of Okabe and Ito
("Color Universal Design", 2008) without their yellow, which is too light for a line on white.
"""

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dassl.utils.files import atomic_path

BLACK = "#000000"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "H", "8")
BASELINE = "random"  # in black, whatever else is drawn

STYLE = {"font.size": 9, "font.family": "DejaVu Sans", "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8,
         "ytick.labelsize": 8, "legend.fontsize": 8, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True,
         "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.4, "lines.markersize": 4.5,
         "pdf.fonttype": 42, "figure.dpi": 100}  # type 42: text in a PDF stays text
styled = rc_context(STYLE)  # a decorator: it sets sizes for our figures and changes nothing outside of them

DPI = 200  # of a PNG file


def method_styles(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the keyword arguments of a line for each method, told apart by colour, dash and marker together."""
    others = [method for method in methods if method != BASELINE]
    styles = {method: {"color": COLORS[index % len(COLORS)], "linestyle": DASHES[index % len(DASHES)],
                       "marker": MARKERS[index % len(MARKERS)], "markeredgecolor": "white", "markeredgewidth": 0.4}
              for index, method in enumerate(others)}
    baseline = {"color": BLACK, "linestyle": (0, (3, 1)), "marker": "x", "zorder": 3}
    return {method: styles.get(method, baseline) for method in methods}


def plain(text: object) -> str:
    """Return a name as text to draw: on one line, and not taken for mathematics or for a hidden label."""
    line = " ".join(str(text).split()).replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line


def panels(n_panels: int, *, size: tuple[float, float] = (2.6, 2.2), n_columns: int = 3) -> tuple[Figure, list[Axes]]:
    """Return a figure with this many panels of a size in inches, in rows; a single panel, or two, are larger."""
    n_rows = math.ceil(n_panels / n_columns)
    n_columns = math.ceil(n_panels / n_rows)
    scale = {1: 2.1, 2: 1.4}.get(n_panels, 1)
    figure = Figure(figsize=(n_columns * scale * size[0], n_rows * (0.5 + scale / 2) * size[1]), layout="constrained")
    grid = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for axes in grid[n_panels:]:
        axes.remove()
    return figure, grid[:n_panels]


def name_axes(axes: Sequence[Axes], x: str, y: str = "") -> None:
    """Write the name of x below the lowest panel of each column, and that of y left of each row."""
    columns = {panel.get_subplotspec().colspan.start: panel for panel in axes}  # keeps the last panel of each column
    for panel in columns.values():
        panel.set_xlabel(x)
    for panel in axes:
        if panel.get_subplotspec().is_first_col():
            panel.set_ylabel(y or panel.get_ylabel())


def legend_below(figure: Figure, handles: Sequence[Line2D], labels: Sequence[str]) -> None:
    """Add a legend below all panels, in as many columns as fit, and make the figure taller by its height."""
    width, height = figure.get_size_inches()
    widest = 0.6 + 0.075 * max(map(len, labels))  # inches per entry: its line, and letters of 8 points
    n_columns = max(1, min(len(labels), int(width / widest)))
    figure.set_size_inches(width, height + 0.17 * math.ceil(len(labels) / n_columns) + 0.1)
    figure.legend(handles, labels, loc="outside lower center", ncols=n_columns, handlelength=3.2, frameon=False)


@styled
def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as NAME.png and NAME.pdf, atomically, and return the files. Equal figures give equal files."""
    files = [folder / f"{name}.png", folder / f"{name}.pdf"]
    for path, metadata in zip(files, ({"Software": None}, {"CreationDate": None}), strict=True):
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=DPI, metadata=metadata)
    return files


@styled
def png_of(figure: Figure, dpi: int = DPI) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def file_name(parts: Iterable[object]) -> str:
    """Return a file name of letters, digits, dots, dashes and underscores; "%" becomes "pct"."""
    words = ("".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in str(part).replace("%", "pct"))
             for part in parts)
    return "_".join(word.strip("-.")[:60] or "-" for word in words)
