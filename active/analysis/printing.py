"""Tables as text, Markdown, CSV or LaTeX."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from tabulate import tabulate


@dataclass(frozen=True)
class Table:
    """A table to print: a title, rows of strings in blocks, and notes below; `data` holds the same numbers, for CSV.

    The index of `frame` is (block, row); `best` marks the cells of `frame` that are set in bold; None marks none. `align` is
    "right" for numbers, "left" for words.
    """

    title: str
    frame: pd.DataFrame
    data: pd.DataFrame
    best: pd.DataFrame | None = None
    notes: Sequence[str] = ()
    align: str = "right"

    def blocks(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yield the name and the rows of each block, in their order."""
        for name, part in self.frame.groupby(level=0, sort=False):
            yield name, part.droplevel(0)


def as_text(table: Table) -> str:
    """Return one block after another, with the notes below."""
    blocks = "\n\n".join(_grid(block, name, "simple", table.align) for name, block in table.blocks())
    lines = [table.title, "=" * len(table.title), "", blocks, "", *(f"* {note}" for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def as_markdown(table: Table) -> str:
    """Return a GitHub table for each block, the best in bold."""
    frame = table.frame.map(lambda text: text.replace("|", "\\|"))
    if table.best is not None:
        frame = frame.where(~table.best, "**" + frame + "**")
    marked = Table(table.title, frame, table.data)
    blocks = "\n\n".join(_grid(block, name, "github", table.align) for name, block in marked.blocks())
    return "\n".join([f"### {table.title}", "", blocks, "", *(f"- {note}" for note in table.notes)]).rstrip() + "\n"


def as_latex(table: Table) -> str:
    r"""Return a `table` in booktabs style, the best in bold; notes are in the caption. Needs `\usepackage{booktabs}`."""
    columns = table.frame.columns
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escaped(' '.join([f'{table.title}.', *table.notes]))}}}",
             rf"\begin{{tabular}}{{l{table.align[0] * len(columns)}}}", r"\toprule",
             " & ".join(["", *map(_escaped, columns)]) + r" \\"]
    for name, block in table.blocks():
        lines += [r"\midrule", rf"\multicolumn{{{1 + len(columns)}}}{{l}}{{\emph{{{_escaped(name)}}}}} \\"]
        for row, texts in block.iterrows():
            bold = [table.best is not None and table.best.at[(name, row), column] for column in block]
            texts = [rf"\textbf{{{_escaped(text)}}}" if is_best else _escaped(text)
                     for text, is_best in zip(texts, bold, strict=True)]
            lines.append(" & ".join([_escaped(row), *texts]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def as_csv(tables: Sequence[Table]) -> str:
    """Return the numbers of tables of one kind, one per row, as fractions with all digits; an empty field is no value."""
    return pd.concat([table.data for table in tables]).to_csv(index=False, lineterminator="\n") if tables else ""


def document(tables: Sequence[Table], notes: Sequence[str], style: str) -> str:
    """Return all tables in one of FORMATS, with the notes at the end, except in CSV, which has no place for them."""
    if style == "csv":
        return as_csv(tables)
    show, bullet = FORMATS[style]
    return "\n".join([*map(show, tables), *(f"{bullet} {note}" for note in notes)]).rstrip() + "\n"


FORMATS = {"text": (as_text, "*"), "markdown": (as_markdown, "-"), "latex": (as_latex, "%"), "csv": None}


def _grid(block: pd.DataFrame, name: str, style: str, align: str) -> str:
    return tabulate(block.reset_index().values.tolist(), [name, *block.columns], tablefmt=style, disable_numparse=True,
                    colalign=("left", *[align] * len(block.columns)))


def _escaped(text: str) -> str:
    """Return the text as LaTeX prints it."""
    signs = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
             "<": "$<$", ">": "$>$"}
    return "".join(signs.get(sign, f"\\{sign}" if sign in "&%$#_{}" else sign) for sign in text)
