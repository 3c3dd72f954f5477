"""A whole run labeled in Chromium with keys only, with an undo, a skip and a kill in the middle. Rows 9 and 25."""

import json
import signal

import pytest

from active.record.results import RunResult
from dassl.data.answers import code_of, written
from tests.browser import browser, visit  # noqa: F401  fixtures
from tests.page_runs import NAMES, PageRun, by_sheets, photos
from tests.test_page import is_same

pytestmark = pytest.mark.starts


def press(page, key: str) -> None:
    """Press a key and wait until its effect shows: another answer, image or message."""
    shows = "document.querySelector('#caption').textContent + document.querySelector('#message').textContent"
    before = page.evaluate(shows)
    page.keyboard.press(key)
    page.wait_for_function(f"before => {shows} !== before && document.querySelector('main').ariaBusy !== 'true'", arg=before)


def take(page, said: int | str) -> None:
    """Answer the image on the screen with keys."""
    keys = {"skip": ["s"], "none": ["n"], "unsure": ["0"]}
    guesses = page.locator("#classes li .name").all_text_contents()
    if isinstance(said, int) and guesses.index(NAMES[said]) == 2:
        keys[said] = ["/", *NAMES[said], "Enter"]
    elif isinstance(said, int):
        keys[said] = [str(guesses.index(NAMES[said]) + 1)]
    elif said.startswith("unsure "):
        keys[said] = ["ArrowDown"] * guesses.index(NAMES[int(said[7:])]) + ["Shift+Enter"]
    for key in keys[said][:-1]:
        page.keyboard.press(key)
    press(page, keys[said][-1])


def shown(page) -> str:
    """Return the name of the image on the screen, once it is there."""
    page.wait_for_function("() => document.querySelector('#frame img')?.complete")
    return page.locator("#caption span").nth(1).text_content()


def wait_for_round(page, round: int) -> None:
    page.wait_for_function("text => document.querySelector('#round').textContent.startsWith(text) && "
                           "!document.querySelector('#choice').hidden", arg=f"Round {round}: ", timeout=60_000)


def test_three_rounds_by_keys_alone(visit, root, tmp_path, record_property):  # noqa: F811
    """The record is that of the same answers on sheets, and the next image is loaded ahead."""
    folder = tmp_path / "photos"
    truth = photos(root, folder)
    kinds = dict(zip(sorted(truth)[::5], ["skip", "none", "unsure", "unsure 1", "skip", "none"], strict=True))
    say = {path: kinds.get(path, NAMES.index(name)) for path, name in truth.items()}
    run = PageRun(folder, tmp_path / "run", "ACTIVE.PAGE.GRACE", "3600")
    page, times = visit(run.address), []
    for round, n_images in enumerate((7, 4, 4)):
        wait_for_round(page, round)
        for place in range(n_images):
            path = shown(page)
            if place == 1:  # a wrong key, taken back
                take(page, (say[path] + 1) % 3 if isinstance(say[path], int) else 0)
                press(page, "u")
                assert shown(page) == path
            if place == 2:  # there and back
                press(page, "ArrowRight")
                press(page, "ArrowLeft")
                assert shown(page) == path
            if (round, place) == (1, 3):  # in the middle of a round, and of the run
                times += measured(page)
                run.process.kill()
                assert run.ended() == -signal.SIGKILL
                run = PageRun(folder, tmp_path / "run", "ACTIVE.PAGE.GRACE", "3600")
                page = visit(run.address)
                wait_for_round(page, 1)
                assert page.locator("#strip .answered").count() == 3 and shown(page) == path
            take(page, say[path])
        page.wait_for_function("() => document.querySelector('#message').textContent.includes('All ')")
        page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#waiting-text').textContent === 'The run has finished'",
                           timeout=60_000)
    assert f"python scripts/predict.py {tmp_path / 'run'}" in page.locator("#commands").text_content()
    assert run.ended() == 0, run.errors
    times += measured(page)
    record_property("milliseconds from key to next image", sorted(times))
    print(f"\nmilliseconds from key to next image: {sorted(times)}")  # noqa: T201  shown by pytest -s
    record = RunResult.read(tmp_path / "run" / "results.json")
    assert is_same(record, by_sheets(folder, tmp_path / "sheets", lambda round, paths: {
        path: written(code_of(say[path]), NAMES) for path in paths}))
    journals = sorted((tmp_path / "run" / "queries").glob("*.jsonl"))
    lines = [json.loads(line) for file in journals for line in file.read_text().splitlines()]
    assert sum(line["answer"] == "" for line in lines) == 3 and len(lines) == 15 + 2 * 3


def measured(page) -> list[int]:
    """Return the milliseconds from each key to the next image."""
    return page.evaluate("performance.getEntriesByName('next image').map(entry => Math.round(entry.duration))")
