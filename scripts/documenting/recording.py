"""Record a command as a terminal shows it: an SVG picture in which each line appears at the time it was printed.

    python -m scripts.documenting.recording docs/pictures/quickstart.svg python train.py --config-file configs/quickstart.yaml

The picture has no script. It plays once, with pauses of at most `PAUSE` seconds, and shows everything at once to people who
prefer reduced motion.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

Line = tuple[float, str]  # seconds since the start, and what was printed

PAUSE = 1.5  # seconds
COLUMNS, WIDTH, HEIGHT, MARGIN = 118, 7.25, 18, 16  # characters of a line; pixels of a character, a line, and around them
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" xml:space="preserve" role="img"
 aria-labelledby="title desc">
<title id="title">{title}</title>
<desc id="desc">{text}</desc>
<style>
text {{ font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }}
text {{ fill: #e6e6e6; white-space: pre }}
.prompt {{ fill: #9ad1ff }}
.line {{ opacity: 0; animation: appear 1ms linear forwards }}
@keyframes appear {{ to {{ opacity: 1 }} }}
@media (prefers-reduced-motion: reduce) {{ .line {{ opacity: 1; animation: none }} }}
</style>
<rect width="100%" height="100%" rx="8" fill="#1e1e1e"/>
{lines}
</svg>
"""


def recorded(command: Sequence[str]) -> list[Line]:
    """Return the lines that a command prints, to either stream, each with its time; raises CalledProcessError if it fails."""
    start, lines = time.monotonic(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines += [(time.monotonic() - start, line.rstrip("\n")) for line in process.stdout]
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return lines


def shortened(lines: Sequence[Line]) -> list[Line]:
    """Return the lines with pauses, including the one before the first, cut to at most `PAUSE`."""
    found, before, now = [], 0.0, 0.0
    for seconds, line in lines:
        now, before = now + min(seconds - before, PAUSE), seconds
        found.append((now, line))
    return found


def picture(command: str, lines: Sequence[Line]) -> str:
    """Return the SVG text of a command and its lines; a line that is too long continues in the next row."""
    rows = [(0.0, "prompt", f"$ {command}"), *(
        (seconds, "line", line[place : place + COLUMNS]) for seconds, line in lines
        for place in range(0, max(len(line), 1), COLUMNS))]
    texts = [f'<text class="{kind}" x="{MARGIN}" y="{MARGIN + HEIGHT * number}"'
             + (f' style="animation-delay: {seconds:.2f}s"' if kind == "line" else "") + f">{escape(row)}</text>"
             for number, (seconds, kind, row) in enumerate(rows, start=1)]
    return SVG.format(title=f"The command {escape(command)} in a terminal", text=escape("; ".join(
        line for _, line in lines if line)), lines="\n".join(texts), width=2 * MARGIN + WIDTH * COLUMNS,
        height=2 * MARGIN + HEIGHT * len(rows))


def main() -> None:
    file, *command = sys.argv[1:]
    Path(file).write_text(picture(" ".join(command), shortened(recorded([sys.executable, *command[1:]]))), "utf-8")


if __name__ == "__main__":
    main()
