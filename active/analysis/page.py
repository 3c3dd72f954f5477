"""One self-contained HTML page: tables, pictures as PNG in base64, no script, nothing to fetch."""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from active.analysis.album import LeftOut, Picture
from active.analysis.printing import Table
from active.analysis.style import png_of

DPI = 150

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light }}
body {{ font: 16px/1.45 system-ui, sans-serif; color: #111; background: #fff; max-width: 68rem; margin: 0 auto; padding: 1rem }}
h1 {{ font-size: 1.6rem; margin: .5rem 0 }}
h2 {{ font-size: 1.3rem; margin: 2.5rem 0 .5rem; border-bottom: 2px solid #111; overflow-wrap: anywhere }}
h3 {{ font-size: 1.05rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere }}
p, li {{ max-width: 46rem }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: .5rem 0 }}
th, td {{ padding: .2rem .6rem; text-align: right; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0 }}
thead th {{ border-bottom: 1px solid #111; vertical-align: bottom }}
tbody th {{ font-weight: normal }}
.name th {{ font-weight: bold; padding-top: .8rem }}
.words {{ text-align: left }}
tbody tr:nth-child(even) {{ background: #f3f3f3 }}
figure {{ margin: 1rem 0 }}
img {{ max-width: 100%; height: auto; display: block }}
figcaption, .small {{ font-size: .85rem; color: #333; max-width: 46rem }}
@media (max-width: 40rem) {{ .wide img {{ max-width: 40rem }} }}
@media print {{
  @page {{ margin: 1.5cm }}
  body {{ font-size: 10pt; max-width: none; padding: 0 }}
  table {{ font-size: 7.5pt }}
  th, td {{ padding: .1rem .3rem }}
  .wide {{ overflow: visible }}
  img {{ max-width: 100%; max-height: 20cm; width: auto }}
  figure, tr {{ break-inside: avoid }}
  h2, h3 {{ break-after: avoid }}
  nav {{ display: none }}
}}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, and below it tables, pictures and lines of text, in this order."""

    title: str
    tables: Sequence[Table] = ()
    pictures: Iterable[Picture | LeftOut] = ()
    lines: Sequence[str] = ()


def page(title: str, lines: Sequence[str], sections: Sequence[Section]) -> str:
    """Return the page: some lines, a table of contents, and the sections."""
    links = "".join(f'<li><a href="#section-{number}">{html.escape(section.title)}</a></li>'
                    for number, section in enumerate(sections, start=1))
    body = [*(f"<p>{html.escape(line)}</p>" for line in lines), f"<nav><ul>{links}</ul></nav>"]
    for number, section in enumerate(sections, start=1):
        body.append(f'<h2 id="section-{number}">{html.escape(section.title)}</h2>')
        body += [_table(table) for table in section.tables]
        body += [_picture(picture) for picture in section.pictures]
        body += [_list(section.lines)] if section.lines else []
    return _PAGE.format(title=html.escape(title), body="\n".join(body))


def _picture(picture: Picture | LeftOut) -> str:
    if isinstance(picture, LeftOut):
        return f'<p class="small">{html.escape(picture.line)}</p>'
    data = base64.b64encode(png_of(picture.figure, DPI)).decode("ascii")
    title, width = html.escape(picture.title), round(96 * picture.figure.get_figwidth())  # CSS has 96 pixels an inch
    return (f'<h3>{title}</h3>\n<figure><div class="wide">'
            f'<img alt="{title}" width="{width}" src="data:image/png;base64,{data}"></div>\n'
            f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>")


def _table(table: Table) -> str:
    """Return a table with a row for the name of each block, and its notes below."""
    side = ' class="words"' if table.align == "left" else ""
    head = "".join(f'<th scope="col"{side}>{html.escape(str(column).strip())}</th>' for column in ["", *table.frame.columns])
    rows = "\n".join(_block(table, name, block) for name, block in table.blocks())
    return (f'<h3>{html.escape(table.title)}</h3>\n<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n{rows}\n'
            f"</table></div>\n" + (_list(table.notes) if table.notes else ""))


def _block(table: Table, name: str, block: pd.DataFrame) -> str:
    width = 1 + len(block.columns)
    bold = table.best.loc[[name]].to_numpy() if table.best is not None else np.zeros(block.shape, bool)
    side = ' class="words"' if table.align == "left" else ""
    rows = []
    for (row, texts), marks in zip(block.iterrows(), bold, strict=True):
        cells = "".join(f"<td{side}>{_bold(text) if mark else html.escape(text)}</td>"
                        for text, mark in zip(texts, marks, strict=True))
        rows.append(f'<tr><th scope="row">{html.escape(str(row))}</th>{cells}</tr>')
    head = f'<tr><th scope="rowgroup" colspan="{width}">{html.escape(str(name))}</th></tr>'
    return "\n".join([f'<tbody class="name">{head}</tbody>', "<tbody>", *rows, "</tbody>"])


def _bold(text: str) -> str:
    return f"<b>{html.escape(text)}</b>"


def _list(lines: Sequence[str]) -> str:
    return f'<ul class="small">{"".join(f"<li>{html.escape(line)}</li>" for line in lines)}</ul>'
