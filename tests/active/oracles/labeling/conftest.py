"""A round of three images of odd kinds, and one that was asked before."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from active.oracles.labeling.board import Board
from active.oracles.labeling.server import Server
from dassl.utils.journal import Journal
from tests.active.oracles.labeling.client import NAMES, PATHS, Client, opened


@pytest.fixture
def root(tmp_path) -> Path:
    """Four images of odd kinds: with EXIF and a comment, turned, of 16 bits."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (40, 20), "red").save(folder / PATHS[0], pnginfo=None)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where I live"
    Image.new("RGB", (2000, 1000), "blue").save(folder / PATHS[1], exif=exif, comment=b"where I live", icc_profile=b"profile")
    Image.new("I;16", (300, 200), 40_000).save(folder / PATHS[2])
    Image.new("RGB", (10, 10)).save(folder / PATHS[3])
    return folder


@pytest.fixture
def journal(tmp_path) -> Journal:
    return Journal(tmp_path / "queries" / "round_003_answers.jsonl")


@pytest.fixture
def board(journal) -> Board:
    return opened(journal)


@pytest.fixture
def server(board, root) -> Iterator[Server]:
    found = Server(board, root.joinpath, {"dataset": "Photos", "classes": NAMES, "output": "run"}, "127.0.0.1", 0)
    yield found
    board.end("over")
    found._pages.last_read = float("-inf")  # nobody reads the last news
    found.stop()


@pytest.fixture
def client(server) -> Client:
    return Client(server)
