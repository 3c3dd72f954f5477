"""Tables in every format can be parsed back to the same values."""

import io
import re

import pandas as pd
import pytest

from active.analysis.printing import FORMATS, Table, as_latex, as_markdown, as_text, document

ROWS = [("A", "random"), ("A", "pcb_badge"), ("B", "random")]
FRAME = pd.DataFrame({"1%": ["38.4 ± 0.2", "40.1 ± 1.0 (2/3)", "-"], "p & q": ["<0.001", "0.5", "a|b"]},
                     index=pd.MultiIndex.from_tuples(ROWS))
BEST = pd.DataFrame([[False, True], [True, False], [False, False]], FRAME.index, FRAME.columns)
TABLE = Table("CoOp, 1% a round", FRAME, pd.DataFrame({"method": ["a", "b"], "mean": [1 / 3, None]}), BEST, ["A note of 5 %."])


def test_text_has_a_grid_for_each_block():
    """A block begins with its name before the columns."""
    text = as_text(TABLE)
    first, second = text.split("\n\n")[1:3]
    assert first.splitlines()[0].split() == ["A", "1%", "p", "&", "q"]
    assert re.split(r"\s{2,}", first.splitlines()[3]) == ["pcb_badge", "40.1 ± 1.0 (2/3)", "0.5"]
    assert second.splitlines()[0].split()[0] == "B" and text.endswith("* A note of 5 %.\n")


def test_markdown_reads_back():
    """Cells are separated by bars, the best is in bold, and bars inside cells are escaped."""
    lines = [line for line in as_markdown(TABLE).splitlines() if line.startswith("|") and "---" not in line]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert rows == [["A", "1%", "p & q"], ["random", "38.4 ± 0.2", "**<0.001**"],
                    ["pcb_badge", "**40.1 ± 1.0 (2/3)**", "0.5"], ["B", "1%", "p & q"], ["random", "-", r"a\|b"]]


def test_latex_reads_back():
    """Rows are between the rules, cells between ampersands, the best is in bold, and LaTeX's special characters are escaped."""
    latex = as_latex(TABLE)
    body = latex[latex.index(r"\toprule"):latex.index(r"\bottomrule")]
    rows = [re.split(r" (?<!\\)& ", line.removesuffix(r" \\")) for line in body.splitlines() if line.endswith(r"\\")]
    assert rows == [["", r"1\%", r"p \& q"], [r"\multicolumn{3}{l}{\emph{A}}"],
                    ["random", r"38.4 $\pm$ 0.2", r"\textbf{$<$0.001}"],
                    [r"pcb\_badge", r"\textbf{40.1 $\pm$ 1.0 (2/3)}", "0.5"], [r"\multicolumn{3}{l}{\emph{B}}"],
                    ["random", "-", "a|b"]]
    assert r"\caption{CoOp, 1\% a round. A note of 5 \%.}" in latex and r"\begin{tabular}{lrr}" in latex


def test_csv_reads_back_with_all_digits():
    """Numbers are not rounded, and None stays None. Tables of one kind share one header."""
    table = pd.read_csv(io.StringIO(document([TABLE, TABLE], ["not in there"], "csv")))
    assert table.method.tolist() == ["a", "b"] * 2 and table["mean"].tolist()[::2] == [1 / 3] * 2
    assert table["mean"].isna().tolist() == [False, True] * 2


@pytest.mark.parametrize("style", [style for style in FORMATS if style != "csv"])
def test_notes_stand_at_the_end(style):
    """They form a list, or comments in LaTeX."""
    assert re.search(r"\n[*%-] Of other code\.\n$", document([TABLE], ["Of other code."], style))
