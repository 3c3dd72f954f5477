"""People as the oracle, in a browser: the run serves a page (`active.oracles.labeling`), waits for its answers, and goes on.

A round's files are in `queries/` of the output folder: `round_NNN_query.json`, the query, and `round_NNN_answers.jsonl`, the
answers, one per line, each on the disk before the page shows the next image. A run that was stopped reads them from there.
"""

import logging
import os
import shlex
import sys
import threading
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from torch import Tensor

from active.context import Query
from active.oracles.asked import read_query, write_query
from active.oracles.labeling.board import ENDED, WORKING, Asked, Board
from active.oracles.labeling.lines import read_lines
from active.oracles.labeling.packages import check_packages
from active.oracles.oracle import ORACLES, Oracle, Question, Setting, largest
from active.record.folder import journal_path, query_path
from active.record.recorders import Losses, Recorder
from active.record.results import RunResult
from dassl.config.defaults import Circumstance
from dassl.data.answers import words
from dassl.utils.journal import Journal
from dassl.utils.progress import listen
from dassl.utils.registry import AtLeast, AtMost

if TYPE_CHECKING:
    from active.oracles.labeling.server import Server

N_GUESSES = 9  # one for each of the keys 1 to 9
EXPOSED = ("the labeling page is open to every machine that reaches %s (ACTIVE.PAGE.HOST), by HTTP, which is not encrypted: "
           "who reads the network reads images and token; `ssh -L` to a page on 127.0.0.1 is safer")

logger = logging.getLogger(__name__)


class PageOracle(Oracle):
    """Asks people on a page, which is served from the first question to the end of the run."""

    def __init__(self, setting: Setting, *, host: str, port: int, opens: bool, grace: float):
        super().__init__(setting.labels, setting.budget)
        self._dataset, self._output, self._place, self._opens = setting.dataset, setting.output, (host, port), opens
        self._codes = {name: label for label, name in enumerate(setting.dataset.classnames)} | words(setting.dataset.classnames)
        self._board = Board(setting.dataset.classnames, grace)
        self._server: Server | None = None
        self._unlisten = lambda: None

    @property
    def recorders(self) -> Sequence[Recorder]:
        return (Told(self._board, self._output),)

    def asked(self, round: int, part: int, basis: tuple[str, str]) -> Query | None:
        return read_query(query_path(self._output, round, part), basis, self._dataset)

    def ask(self, question: Question, rows: Tensor) -> dict[int, int]:
        """Return what people answer in the page, by row, once every row [n] has an answer.

        Questions that the journal answers already are not asked again. Raises DataError, naming the line, if it is damaged.
        """
        round, part = question.round, question.part
        write_query(query_path(self._output, round, part), question.basis, question.query, self._dataset)
        train, row_of = self._dataset.train, self._dataset.train_rows
        paths = [train[row].path for row in rows.tolist()]
        before = self.answered_before.nonzero().flatten()
        earlier = {train[row].path: code for row, code in zip(before.tolist(), self._labels[before].tolist(), strict=True)}
        journal = Journal(journal_path(self._output, round, part))
        lines = read_lines(journal, self._codes, paths, earlier)
        audit = frozenset(train[row].path for row in question.audit.tolist())
        self._serve()
        scores = {train[row].path: score for row, score in question.scores.items()}
        asked = Asked(round, paths, largest(question.guess(rows), N_GUESSES), audit, journal, scores, part)
        self._board.ask(asked, lines, earlier)
        answers = self._board.close() if self._board.is_complete else self._waited()
        logger.info("round %d: %d images were answered in the labeling page", round, len(paths))
        return {row_of[path]: answers[path] for path in [*paths, *earlier]}

    def close(self) -> None:
        self._unlisten()
        state = self._board.state(-1)
        if state["round"] is not None:
            logger.info("round %d: the answers to %d of %d images are kept", *(
                state[name] for name in ("round", "n_answered", "n_images")))
        self._board.end("the run was stopped; the same command goes on where it was")
        if self._server:
            self._server.stop()

    def _serve(self) -> None:
        """Start the page, unless it is running, and print its address."""
        if self._server:
            return
        from active.oracles.labeling.guard import is_loopback
        from active.oracles.labeling.server import Server

        about = {"dataset": self._dataset.name, "classes": list(self._dataset.classnames),
                 "output": shlex.quote(str(self._output))}
        server = self._server = Server(self._board, self._dataset.place, about, *self._place)
        self._unlisten = listen(self._board.progress)
        if not is_loopback(host := self._place[0]):
            logger.warning(EXPOSED, host)
        logger.info("label in your browser: %s", server.address)

    def _waited(self) -> dict[str, int]:
        """Open the page where there is a display, and return the answers once all are there."""
        if self._opens and has_display():
            threading.Thread(target=webbrowser.open, args=(self._server.address,), daemon=True).start()
            self._opens = False
        return self._board.wait()


class Told(Recorder):
    """Tells the page about the progress of the run."""

    def __init__(self, board: Board, output: Path):
        self._board, self._output = board, output

    def begin(self, result: RunResult) -> None:
        self._board.tell(result, WORKING, "selecting")

    def add_round(self, result: RunResult, losses: Losses) -> None:
        self._board.tell(result, WORKING, f"round {result.rounds[-1].round} is done, selecting")

    def end(self, result: RunResult) -> None:
        self._board.tell(result, ENDED, f"the run has failed: {result.failure}" if result.failure else "the run has finished")


def restore(output: Path, round: int, part: int, names: Mapping[str, str]) -> None:
    """Write the journal of a part of a round that has been labeled; `names` is what people answered, by path."""
    Journal(journal_path(output, round, part)).append(
        [{"time": "", "who": "", "path": path, "answer": name} for path, name in names.items()])


@ORACLES.register("page", asks_people=True, check=check_packages, restore=restore)
def page(
    setting: Setting, *,
    host: Annotated[str, Circumstance()] = "127.0.0.1",  # 0.0.0.0 lets other machines in
    port: Annotated[int, AtLeast(0), AtMost(65535), Circumstance()] = 0,  # 0 is a free one
    open: Annotated[bool, Circumstance()] = True,  # whether to open the page in a browser, where there is a display
    # seconds in which the last answer of a round can be taken back
    grace: Annotated[float, AtLeast(0.0), AtMost(3600.0), Circumstance()] = 5.0,
) -> PageOracle:
    """Return the oracle that asks people on a page."""
    return PageOracle(setting, host=host, port=port, opens=open, grace=grace)


def has_display() -> bool:
    """Tell whether a browser could show itself."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
