"""The labeling page in Chromium: conflicts, the grid, a thousand classes, contrast, narrow screens. Rows 25 and 34."""

import pytest

from active.oracles.labeling.board import Asked, Board
from active.oracles.labeling.server import Server
from dassl.data.answers import NONE, SKIP, UNSURE
from tests.active.oracles.labeling.client import GUESSES, NAMES, PATHS, opened
from tests.browser import browser, visit  # noqa: F401  fixtures

pytestmark = pytest.mark.starts

TEXTS = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => numbers(color).slice(0, 3).map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
  const below = (element) => {
    for (let own = element; own; own = own.parentElement) {
      const color = getComputedStyle(own).backgroundColor;
      if (numbers(color)[3] !== 0) return color;
    }
  };
  return [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility()
      && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && !element.closest(":disabled, svg"))
    .map((element) => {
      const [one, other] = [light(getComputedStyle(element).color), light(below(element))].sort((a, b) => b - a);
      return [(one + 0.05) / (other + 0.05), element.outerHTML.slice(0, 120)];
    });
}"""
NAMELESS = """() => [...document.querySelectorAll("button, input, select, a, [role], dialog, img")].filter((element) =>
  element.checkVisibility() && !(element.ariaLabel || element.labels?.length || element.textContent.trim() || element.title
    || element.getAttribute("aria-labelledby") || element.getAttribute("alt") !== null || element.role === "status"
    || element.role === "alert")).map((element) => element.outerHTML.slice(0, 120))"""


def wait(page, expression: str) -> None:
    """Wait until something holds, and no answer is on its way."""
    page.wait_for_function(f"() => {expression} && document.querySelector('main').ariaBusy !== 'true'", timeout=20_000)


def text(page, selector: str) -> str:
    return page.locator(selector).text_content()


def test_names_are_text(visit, server):  # noqa: F811
    """Row 35: a class or a file whose name is a script runs nothing and loads nothing."""
    page = visit(server.address)
    assert page.locator("#classes .name").all_text_contents() == [NAMES[0], NAMES[2], NAMES[1]]
    page.keyboard.press("3")
    wait(page, "document.querySelector('#message').textContent.includes('onerror')")
    page.keyboard.press("ArrowRight")
    assert PATHS[2] in text(page, "#caption") and page.locator("img[src=x]").count() == 0
    assert "token" not in page.url and page.evaluate("document.cookie") == ""


def test_a_conflict_is_shown_with_both_answers_and_settled_by_keys(visit, server, board):  # noqa: F811
    """Row 25: two people label one image. The second is asked what to do, and Escape keeps the first one's answer."""
    ann, bob = visit(server.address), visit(server.address)
    for page, name in ((ann, "Ann"), (bob, "Bob")):
        page.fill("#who", name)
        page.press("#who", "Enter")
    ann.keyboard.press("1")
    wait(bob, "document.querySelector('#message').textContent === 'Ann has just labeled this image: heron.'")
    bob.keyboard.press("2")
    bob.wait_for_selector("#conflict[open]")
    assert "Ann has said “heron” at" in text(bob, "#conflict-text") and "you say “kingfisher”" in text(bob, "#conflict-text")
    assert bob.evaluate("document.activeElement.id") == "keep"
    bob.keyboard.press("Escape")
    wait(bob, "document.querySelector('#caption').textContent.includes('2 of 3')")
    assert [own["answer"] for own in board.state(-1)["answers"]] == [0, None, None]
    ann.keyboard.press("1")
    wait(bob, "document.querySelector('#message').textContent.startsWith('Ann has just')")
    bob.keyboard.press("2")
    bob.wait_for_selector("#conflict[open]")
    bob.keyboard.press("Tab")
    bob.keyboard.press("Enter")
    wait(ann, "document.querySelector('#strip li:nth-child(2) button').title.includes('kingfisher')")
    own = board.state(-1)["answers"][1]
    assert (own["answer"], own["who"]) == (2, "Bob")


def test_the_grid_labels_many_at_once_and_one_undo_takes_them_back(visit, server, board, journal):  # noqa: F811
    page = visit(server.address)
    page.keyboard.press(".")
    page.wait_for_selector(".tile")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert page.locator(".tile[aria-selected=true]").count() == 2
    assert page.evaluate("document.activeElement.className") == "tile cursor"
    page.keyboard.type("king")
    page.keyboard.press("Enter")
    wait(page, "document.querySelectorAll('.tile').length === 1")
    assert sorted(own["answer"] for own in board.state(-1)["answers"] if own["answer"] is not None) == [2, 2]
    page.keyboard.press("u")
    wait(page, "document.querySelectorAll('.tile').length === 3")
    page.keyboard.press("Control+a")
    page.keyboard.press("1")
    wait(page, "document.querySelector('#message').textContent.startsWith('All 3 are labeled')")
    assert board.is_complete and [line["answer"] for line in journal.read()] == 2 * ["kingfisher"] + 2 * [""] + 3 * ["heron"]


def test_an_earlier_label_is_corrected_from_the_examples(visit, server, board):  # noqa: F811
    """With keys only: go to its class, to the image, and to the right class."""
    page = visit(server.address)
    page.wait_for_selector("#examples button")
    page.focus("#examples button")
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('#caption').textContent.includes('d.png')")
    page.keyboard.type("king")
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('#caption').textContent.includes('1 of 3')")
    assert [own["name"] for own in board.labeled(2)] == ["d.png"] and board.state(-1)["n_answered"] == 0


def test_a_correction_is_undone_by_the_same_key(visit, server, board, journal):  # noqa: F811
    """The image gets its previous label back, and no other answer is undone. A second undo takes back the one before."""
    page = visit(server.address)
    page.keyboard.press("1")
    wait(page, "document.querySelector('#caption').textContent.includes('2 of 3')")
    page.wait_for_selector("#examples button[title='d.png']")
    page.focus("#examples button[title='d.png']")
    page.keyboard.press("Enter")
    page.keyboard.type("king")
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('#message').textContent === 'd.png: kingfisher'")
    page.keyboard.press("u")
    wait(page, "document.querySelector('#message').textContent === 'Taken back: d.png, kingfisher'")
    assert sorted(own["name"] for own in board.labeled(0)) == ["a.png", "d.png"] and "d.png" in text(page, "#caption")
    page.keyboard.press("u")
    wait(page, "document.querySelector('#message').textContent === 'Taken back: image 1, heron'")
    assert [line["answer"] for line in journal.read()] == ["heron", "kingfisher", "heron", ""]


@pytest.mark.parametrize(("word", "code"), [("none", NONE), ("skip", SKIP), ("unsure", UNSURE - 1)])
def test_an_earlier_answer_that_is_no_class_can_be_corrected(visit, root, journal, word, code):  # noqa: F811
    """It is found by its word, after the mark that it has in sheets."""
    board = opened(journal, earlier={"d.png": code})
    server = Server(board, root.joinpath, {"dataset": "Photos", "classes": NAMES, "output": "run"}, "127.0.0.1", 0)
    page = visit(server.address)
    page.keyboard.type(f"!{word[:2]}")
    page.wait_for_selector("#examples button")
    assert page.locator("#classes li").count() == 1
    page.focus("#examples button")
    page.keyboard.press("Enter")
    page.keyboard.type("king")
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('#caption').textContent.includes('1 of 3')")
    assert [own["name"] for own in board.labeled(2)] == ["d.png"]
    server._pages.last_read = float("-inf")
    server.stop()


def test_the_strip_is_one_stop_of_tab(visit, server):  # noqa: F811
    """Going from the tools to the classes with Tab stops at one image only. Arrow keys move between images."""
    page = visit(server.address)
    page.focus("#keys-button")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Image 1: no label yet"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.press("ArrowRight")
    page.focus("#keys-button")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Image 2: no label yet"


def test_a_key_that_is_held_down_labels_one_image(visit, server, board):  # noqa: F811
    """Its repetitions would label images that nobody has looked at."""
    page = visit(server.address)
    page.keyboard.down("1")
    wait(page, "document.querySelector('#caption').textContent.includes('2 of 3')")
    for _ in range(3):
        page.keyboard.down("1")
    page.keyboard.up("1")
    page.keyboard.press("ArrowRight")
    wait(page, "document.querySelector('#caption').textContent.includes('3 of 3')")
    assert board.state(-1)["n_answered"] == 1


def test_a_next_round_has_the_focus_and_the_end_is_spoken(visit, server, board, journal):  # noqa: F811
    """People who label with keys or a screen reader can go on without moving the focus."""
    page = visit(server.address)
    board.close()
    page.wait_for_selector("#waiting:not([hidden])")
    board.ask(Asked(4, [PATHS[3]], GUESSES[:1], frozenset(), journal), (), {PATHS[0]: 1})
    wait(page, "document.querySelector('#round').textContent === 'Round 4: 0 of 1 labeled'")
    assert page.evaluate("document.activeElement.id") == "filter"
    board.close()
    board.end("the run has finished")
    wait(page, "document.querySelector('#spoken').textContent === 'The run has finished'")
    assert "ACTIVE.ROUNDS" in text(page, "#mending") and page.locator("#mending").is_visible()


def test_an_image_that_is_damaged_by_now_says_so(visit, server, root):  # noqa: F811
    """This also holds for an image that was fetched ahead, before it was shown."""
    (root / PATHS[1]).write_bytes(b"no image")
    page = visit(server.address)
    wait(page, "performance.getEntriesByType('resource').filter((own) => own.name.includes('size=large')).length === 3")
    page.keyboard.press("ArrowRight")
    wait(page, "document.querySelector('#message').textContent === 'This image cannot be shown. S skips it.'")
    page.keyboard.press("q")
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('#message').textContent.startsWith('No class has this')")
    page.keyboard.press("Escape")
    wait(page, "document.querySelector('#message').textContent === ''")


def test_the_zoom_and_the_keys_open_and_close_by_keys(visit, server, board):  # noqa: F811
    page = visit(server.address)
    for key, selector in (("Space", "#zoom"), ("?", "#keys")):
        page.keyboard.press(key)
        page.wait_for_selector(f"{selector}[open]")
        page.keyboard.press("1")  # no label while it is open
        page.keyboard.press("Escape")
        page.wait_for_selector(f"{selector}:not([open])", state="attached")
        assert page.evaluate("document.activeElement.id") == "filter"
    assert board.state(-1)["n_answered"] == 0


@pytest.fixture
def thousand(root, journal):
    """The page of a run with a thousand classes."""
    names = [f"{('sparrow', 'nuthatch', 'unicorn', 'Goldammer é')[number % 4]} {number}" for number in range(1000)]
    board = Board(names, 0.0)
    board.ask(Asked(3, PATHS[:3], [[(label, 0.1) for label in range(9)]] * 3, frozenset(), journal), (), {})
    server = Server(board, root.joinpath, {"dataset": "Birds", "classes": names, "output": "run"}, "127.0.0.1", 0)
    yield server, board
    server._pages.last_read = float("-inf")
    server.stop()


def test_a_thousand_classes_are_filtered_by_letters_that_are_commands_too(visit, thousand):  # noqa: F811
    """After "/" each of them is text; without, S skips, N is none, U undoes, and any other letter begins a filter."""
    server, board = thousand
    page = visit(server.address)
    page.keyboard.type("/sparrow 996")
    assert page.locator("#classes .name").all_text_contents() == ["sparrow 996"] and board.state(-1)["n_answered"] == 0
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('#caption').textContent.includes('2 of 3')")
    page.keyboard.type("goldammer e 99")
    assert page.locator("#classes .name").all_text_contents() == [f"Goldammer é {own}" for own in (99, 991, 995, 999)]
    page.keyboard.press("Escape")
    assert page.locator("#classes li").count() == 50 and "950 more" in text(page, "#more")
    page.keyboard.press("s")
    wait(page, "document.querySelector('#caption').textContent.includes('3 of 3')")
    page.keyboard.press("n")
    wait(page, "document.querySelector('#message').textContent.startsWith('All 3 are labeled')")
    assert [own["answer"] for own in board.state(-1)["answers"]] == [996, "skip", "none"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
def test_it_is_read_by_all(visit, server, scheme, width):  # noqa: F811
    """Contrast meets AA (4.5), every control has a name, and nothing is cut off, also in the grid and in dialogs."""
    page = visit(server.address, color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    page.keyboard.press("1")
    wait(page, "document.querySelector('#strip .answered') !== null")
    for key in ("", ".", "Space", "?"):
        if key:
            page.keyboard.press(key)
        assert [own for own in page.evaluate(TEXTS) if own[0] < 4.5] == []
        assert page.evaluate(NAMELESS) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("dialog[open]").count() == 1


def test_a_page_of_a_run_that_is_gone_says_so(visit, board, root):  # noqa: F811
    """It accepts no answer either."""
    server = Server(board, root.joinpath, {"dataset": "Photos", "classes": NAMES, "output": "run"}, "127.0.0.1", 0)
    page = visit(server.address)
    server._pages.last_read = float("-inf")
    server.stop()
    page.wait_for_selector("#alert:not([hidden])")
    assert "The run does not answer" in text(page, "#alert")
    page.keyboard.press("1")
    wait(page, "document.querySelector('#alert').textContent.startsWith('Not taken')")
    assert "1 of 3" in text(page, "#caption")


def test_the_next_image_is_there_before_it_is_asked_for(visit, server):  # noqa: F811
    """A key press then shows it at once."""
    page, asked = visit(server.address), []
    wait(page, "performance.getEntriesByType('resource').filter((own) => own.name.includes('size=large')).length === 3")
    page.on("request", lambda request: asked.append(request.url))
    page.keyboard.press("1")
    wait(page, "document.querySelector('#caption').textContent.includes('2 of 3')")
    wait(page, "document.querySelector('#frame img').complete")
    assert not [url for url in asked if "size=large" in url]
