"""Figures that look alike, can be told apart, and are the same file every time."""

import matplotlib
import pytest
from matplotlib.figure import Figure

from active.analysis.style import (
    BASELINE,
    file_name,
    legend_below,
    method_styles,
    panels,
    plain,
    png_of,
    styled,
    write_figure,
)
from dassl.utils.errors import UserError

METHODS = [f"method {number}" for number in range(15)]


def test_sixteen_methods_differ_without_their_colour():
    """In a gray print, dash and marker remain. No two methods share both, and none shares them with the baseline."""
    styles = method_styles([BASELINE, *METHODS])
    assert len({(str(style["linestyle"]), style["marker"]) for style in styles.values()}) == 16
    assert len({(style["color"], str(style["linestyle"])) for style in list(styles.values())[:13]}) == 13


def test_the_baseline_has_its_own_style_wherever_it_stands():
    """It is black, and the styles of the others do not depend on it."""
    assert method_styles(["a", BASELINE])[BASELINE]["color"] == "#000000"
    assert method_styles(["a", "b"]) == {key: value for key, value in method_styles([BASELINE, "a", "b"]).items()
                                         if key != BASELINE}


@pytest.mark.parametrize("n_panels, rows, columns", [(1, 1, 1), (3, 1, 3), (4, 2, 2), (11, 4, 3)])
def test_panels_fill_their_grid(n_panels, rows, columns):
    """As many axes as panels, none of them empty, in few rows."""
    figure, axes = panels(n_panels)
    assert len(axes) == len(figure.axes) == n_panels
    assert axes[0].get_subplotspec().get_gridspec().get_geometry() == (rows, columns)


def test_the_legend_lies_below_the_panels_and_inside_the_figure():
    """Sixteen long names overlap neither the panels nor the edge."""
    figure, axes = panels(3)
    handles = [axes[0].plot([0, 1], [0, 1])[0] for _ in range(16)]
    legend_below(figure, handles, [f"a sampler of a long name {number}" for number in range(16)])
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1
    assert all(panel.get_tightbbox().y0 >= box.y1 for panel in axes)


@pytest.mark.parametrize("name", ["a $x_1$", "_hidden", "two\nlines", r"back\slash $"])
def test_any_name_is_drawn_as_it_is(name):
    """Math characters are shown as they are, and a leading underscore does not hide a method from the legend."""
    figure, axes = panels(1)
    handles = axes[0].plot([0, 1], [0, 1])
    legend_below(figure, handles, [plain(name)])
    png_of(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [plain(name)]


def test_a_figure_is_written_in_both_formats_and_the_same_every_time(tmp_path):
    """Neither file holds a date, and no temporary file is left."""
    for folder in ("a", "b"):
        figure, axes = panels(1)
        axes[0].plot([0, 1], [0, 1])
        write_figure(figure, tmp_path / folder, "figure")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["figure.pdf", "figure.png"]
    for name, start in (("figure.png", b"\x89PNG"), ("figure.pdf", b"%PDF")):
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("a", "b"))
        assert first == second and first.startswith(start)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_figure(Figure(), tmp_path / "file", "figure")


def test_styles_do_not_leak():
    """Figures drawn elsewhere keep their sizes."""
    before = dict(matplotlib.rcParams)
    assert styled(lambda: matplotlib.rcParams["pdf.fonttype"])() == 42
    assert dict(matplotlib.rcParams) == before


def test_file_names_hold_no_sign_that_a_system_refuses():
    assert file_name(["curves", "CoOp", "ViT-B/16", "1%"]) == "curves_CoOp_ViT-B-16_1pct"
    assert file_name(["a b", "..", "c" * 100]) == "a-b_-_" + "c" * 60
