"""The page has every table and picture, is marked up and escaped correctly, and loads nothing from outside."""

import re
from html.parser import HTMLParser

import pandas as pd
from matplotlib.figure import Figure

from active.analysis.album import LeftOut, Picture
from active.analysis.page import Section, page
from active.analysis.printing import Table

OUTSIDE = re.compile(r"https?:|<script|<link|<iframe|@import|\burl\(|\bsrc=\"(?!data:)|\bhref=\"(?!#)")
EMPTY = {"meta", "img"}


class Tags(HTMLParser):
    """Checks that tags are closed in the right order."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def made():
    index = pd.MultiIndex.from_tuples([("Air", "random"), ("Air", "<b> & co"), ("Sea", "random")])
    frame = pd.DataFrame({"round 0": ["1.0", "2.0", "3.0"], "area": ["4.0", "5.0", "6.0"]}, index)
    table = Table("a < b", frame, frame, frame == "5.0", ["note & more"])
    pictures = [Picture("name", "title <i>", "caption &", Figure(figsize=(2, 1))), LeftOut("no <picture>")]
    return page("all & everything", ["first line"], [Section("part <1>", [table], pictures, ["last <line>"])])


def test_the_page_is_whole_and_shows_all_of_it_as_text():
    """Names with signs of HTML are text, every tag is closed."""
    tags = Tags()
    tags.feed(made())
    assert tags.open == []
    text = "".join(tags.text)
    for part in ("all & everything", "first line", "part <1>", "a < b", "<b> & co", "note & more", "title <i>", "caption &",
                 "no <picture>", "last <line>"):
        assert part in text


def test_nothing_comes_from_outside():
    """There is no script, no style sheet and no picture that is not embedded. The pattern is known to find those."""
    assert not OUTSIDE.search(made())
    for line in ('<img src="a.png">', "<script>", '<a href="https://x">', "url(x)"):
        assert OUTSIDE.search(line)


def test_a_table_has_a_line_for_each_block_and_marks_the_best():
    text = made()
    assert re.findall(r'rowgroup" colspan="3">(.*?)<', text) == ["Air", "Sea"]
    assert re.findall(r"<b>(.*?)</b>", text) == ["5.0"]
    assert [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(<th scope=\"row\">.*?)</tr>", text)] == [
        ["1.0", "4.0"], ["2.0", "<b>5.0</b>"], ["3.0", "6.0"]]


def test_a_picture_has_the_size_of_its_figure():
    """Two inches are 192 pixels, whatever the resolution of the file."""
    assert 'width="192" src="data:image/png;base64,iVBOR' in made()
