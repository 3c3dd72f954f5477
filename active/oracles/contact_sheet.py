"""A contact sheet: images and guesses as one self-contained HTML file, without network or script."""

import base64
import html
import io
from collections.abc import Sequence

from dassl.data.images import read_image
from dassl.data.places import Place
from dassl.utils.text import printable

SIDE = 224  # pixels of the longer side of an image
QUALITY = 85  # of the JPEG files

Guesses = list[tuple[str, float]]  # class names and their probabilities, the largest first

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.4 sans-serif; margin: 2em; color: #111; background: #fff }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax({side}px, 1fr)); gap: 1.5em }}
figure {{ margin: 0; break-inside: avoid }}
img {{ width: {side}px; height: {side}px; object-fit: contain; background: #eee }}
b {{ font-size: 1.2em }}
code {{ overflow-wrap: anywhere; font-size: .8em }}
ol {{ margin: .3em 0; padding-left: 1.5em }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>Numbers and paths are those of the CSV file beside this one. Below each image: the model's guesses.</p>
<p>The column label takes a class name, or <code>!skip</code>: I cannot label it; <code>!none</code>: it is of no class;
<code>!unsure</code>, also with a class name after it: do not train on it.</p>
<main>
{figures}
</main>
</body>
</html>
"""

_FIGURE = """<figure>
<img src="data:image/jpeg;base64,{data}" alt="image {number}">
<figcaption><b>{number}</b> <code>{path}</code>{score}<ol>{guesses}</ol></figcaption>
</figure>"""


def contact_sheet(
    title: str, files: Sequence[Place], paths: Sequence[str], guesses: Sequence[Guesses], scores: Sequence[float | None],
) -> str:
    """Return an HTML page of images, numbered from 1, each with its path and guesses, and its score if it has one.

    Raises DataError naming the file if one cannot be decoded.
    """
    figures = []
    for number, (file, path, own, score) in enumerate(zip(files, paths, guesses, scores, strict=True), start=1):
        lines = "".join(f"<li>{html.escape(printable(name))} ({share:.0%})</li>" for name, share in own)
        figures.append(_FIGURE.format(data=_jpeg(file), number=number, path=html.escape(printable(path)), guesses=lines,
                                      score="" if score is None else f"<br>score {score:.4g}"))
    return _PAGE.format(title=html.escape(title), side=SIDE, figures="\n".join(figures))


def _jpeg(file: Place) -> str:
    """Return an image, no side above `SIDE` pixels, as the base64 text of a JPEG file."""
    image, stream = read_image(file), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(stream, "JPEG", quality=QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")
