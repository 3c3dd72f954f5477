"""Runs labeled on the page, as separate commands, for tests; and the same runs with sheets."""

import csv
import http.client
import io
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import train
from active.record.results import RunResult
from datasets.digits import CLASSNAMES, digits
from tests import commands

NAMES = CLASSNAMES[:3]
N_ROUNDS = 3

Say = Callable[[int, str], int | str]  # of a round and a path: an answer as records have it


def photos(root: Path, folder: Path, n_each: int = 10) -> dict[str, str]:
    """Put some images of each of three digits into a folder, with a file of their classes; return the class of each."""
    digits(root)
    folder.mkdir()
    truth = {}
    for name in NAMES:
        for file in sorted((root / "digits" / "images" / name).iterdir())[:n_each]:
            shutil.copy(file, folder)
            truth[file.name] = name
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return truth


def words(folder: Path, output: Path, oracle: str, *more: str) -> list[str]:
    """Return the command-line words of a run of three rounds of four images, with an audit of three images in the first."""
    page = ("ACTIVE.PAGE.OPEN", "false", "ACTIVE.PAGE.GRACE", "0") if oracle == "page" else ()
    return ["--config-file", "configs/quickstart.yaml", "--root", str(folder), "--output-dir", str(output), "DATASET.NAME",
            "ImageFolder", "DATASET.IMAGEFOLDER.CLASSES", "classes.txt", "ACTIVE.ORACLE", oracle, "ACTIVE.ROUNDS",
            str(N_ROUNDS), "ACTIVE.QUERY_SIZE", "4", "ACTIVE.AUDIT", "3", "OPTIM.MAX_EPOCH", "3", *page, *more]


def by_sheets(folder: Path, output: Path, rows: Callable[[int, list[str]], dict[str, str]], *more: str) -> RunResult:
    """Return the record of a run whose sheets are filled with what `rows` says, by path, to the images of a round."""
    for round in range(N_ROUNDS):
        assert train.main(words(folder, output, "file", *more)) == 3
        sheet = output / "queries" / f"round_{round:03d}.csv"
        with sheet.open(newline="") as text:
            paths = [row["path"] for row in csv.DictReader(text)]
        sheet.write_text("\n".join(["path,label", *(f"{path},{name}" for path, name in rows(round, paths).items())]))
    assert train.main(words(folder, output, "file", *more)) == 0
    return RunResult.read(output / "results.json")


class PageRun:
    """A run as a separate command that has printed its address. `ask` sends what a page would send."""

    def __init__(self, folder: Path, output: Path, *more: str, kill_at: str = ""):
        self.process = commands.popen(
            [sys.executable, "train.py", *words(folder, output, "page", *more)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="backslashreplace", env=os.environ | {"PYTHONUNBUFFERED": "1", "KILL_AT": kill_at})
        self.said = ""
        self.address = next(self._addresses(), "")
        self.base, _, self.token = self.address.partition("/?token=")

    def _addresses(self) -> Iterator[str]:
        for line in self.process.stdout:
            self.said += line
            if found := re.search(r"http://\S+", line):
                yield found[0]

    def ask(self, path: str, content: Any = None) -> Any:
        """Return the run's response, even a refusal. Raises OSError if the run is gone, even in the middle of a response."""
        request = urllib.request.Request(
            self.base + path, headers={"X-Page-Token": self.token, "Content-Type": "application/json"},
            data=None if content is None else json.dumps(content).encode())
        try:
            return json.load(self._response(request))
        except http.client.HTTPException as error:
            raise ConnectionError(f"the run is gone: {error}") from error

    @staticmethod
    def _response(request: urllib.request.Request) -> io.BytesIO:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return io.BytesIO(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return io.BytesIO(error.read())

    def questions(self) -> Iterator[dict[str, Any]]:
        """Yield each question once, until the run ends or is killed."""
        since, seen = -1, None
        while self.address:
            try:
                state = self.ask(f"/state?since={since}")
                since, round, now = state["number"], state["round"], (state["round"], state["part"])
                if state["doing"]["kind"] == "ended":
                    return
                if round is not None and now != seen and (question := self.ask("/question"))["images"]:
                    seen = now
                    answered = {own["image"] for own in self.ask("/state?since=-1")["answers"] if own["answer"] is not None}
                    yield question | {"open": [own for own in question["images"] if own["number"] not in answered]}
            except (OSError, ValueError):  # it was killed
                return

    def answer(self, round: int, *answers: tuple[int, Any, int], who: str = "") -> Any:
        """Send (number of an image, answer, the answer seen) and return the response."""
        return self.ask("/answers", {"who": who, "round": round, "answers": [
            {"image": image, "answer": said, "seen": seen} for image, said, seen in answers]})

    def labeled(self, say: Say) -> int:
        """Answer everything that is asked, one image at a time, and return the exit code."""
        for question in self.questions():
            for own in question["open"]:
                try:
                    self.answer(question["round"], (own["number"], say(question["round"], own["name"]), 0))
                except (OSError, ValueError):  # it was killed
                    break
        return self.ended()

    def ended(self) -> int:
        """Return the exit code once the run has ended. `said` holds its output, `errors` its errors."""
        out, self.errors = self.process.communicate(timeout=120)
        self.said += out
        return self.process.returncode
