"""Every code block of the documentation is executed, or says in a comment before it why not."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

import train
from active import verify
from dassl.utils.errors import UserError
from scripts.experiments import local
from tests import commands
from tests.conftest import PROJECT_FILES
from tests.docs import blocks
from tests.docs.blocks import LANGUAGES, Block, Session, blocks_of, check_words, shell_commands

PROJECT = Path(__file__).parents[2]
PAGES = [path for path in (PROJECT / "README.md", PROJECT / "DATASETS.md", *sorted((PROJECT / "docs").rglob("*.md")),
                           *sorted((PROJECT / "benchmarks").glob("*.md")))]
BLOCKS = {path.relative_to(PROJECT).as_posix(): found for path in PAGES
          if (found := [*blocks_of(path.read_text(), path.relative_to(PROJECT).as_posix())])}
EXECUTED = {page: [block for block in found if not block.why_not_run and block.language != "text"]
            for page, found in BLOCKS.items()}
CLASSES = ("heron", "kingfisher", "magpie")


@pytest.mark.parametrize("page", BLOCKS)
def test_every_block_says_what_it_is(page):
    """The language is known, and the mark is valid: either a reason why it is not run, or an exit code."""
    for block in BLOCKS[page]:
        assert block.language in LANGUAGES, block.where
        if block.mark.startswith(("not run", "exits")):
            assert len(block.why_not_run.split()) > 3 or block.exit_codes, block.where


@pytest.mark.parametrize("page", [page for page, found in EXECUTED.items() if found])
def test_the_blocks_of_a_page_run(page, folder):
    """They run one after the other, as if a reader typed them."""
    session = Session()
    for block in EXECUTED[page]:
        session.execute(block)


@pytest.mark.parametrize("page", [page for page, found in BLOCKS.items() if any(block.why_not_run for block in found)])
def test_commands_that_are_not_run_are_well_formed(page, folder, capsys):
    """Files, keys, names and flags of a block that is not executed are those of the project."""
    for block in BLOCKS[page]:
        for words in shell_commands(block.text) if block.why_not_run and block.language == "bash" else ():
            if words[0] == "python":
                check_words(words)


def test_a_block_is_read_with_what_stands_before_it():
    """Its mark, language and file are read. A comment further up belongs to something else."""
    text = "<!-- not run: it needs a GPU -->\n```bash\na \\\n  b # c\n```\n\n<!-- x -->\n\n```python\n# f.py\nx\n```\n"
    first, second = blocks_of(text, "p.md")
    assert first == Block("p.md", 2, "bash", "a \\\n  b # c\n", "not run: it needs a GPU")
    assert first.why_not_run == "it needs a GPU" and shell_commands(first.text) == [["a", "b"]]
    assert (second.file, second.mark, second.line) == ("f.py", "", 9)
    with pytest.raises(ValueError, match=r"p\.md:1: the block is not closed"):
        list(blocks_of("```bash\na\n", "p.md"))


def test_what_does_not_run_is_found(folder):
    """A wrong key, Python that raises, invalid YAML, an unknown command, and an unexpected exit code are found."""
    session, wrong = Session(), "python train.py --config-file configs/quickstart.yaml NO.KEY 1\n"
    session.execute(Block("p.md", 1, "bash", wrong, "exits with 2"))
    for language, text, error in (("bash", wrong, AssertionError), ("bash", "curl x\n", AssertionError),
                                  ("python", "1 / 0\n", ZeroDivisionError), ("yaml", "a: [1\n", yaml.YAMLError)):
        with pytest.raises(error):
            session.execute(Block("p.md", 1, language, text, ""))
    with pytest.raises(UserError, match=r"NO\.KEY|key NO"):
        check_words(shell_commands(wrong)[0])


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder of small images in three classes, `my_photos`, and a finished run on it, `run`."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(60):
        path = folder / "my_photos" / CLASSES[number % 3] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), tuple(200 if channel == number % 3 else 3 * number for channel in range(3))).save(path)
    assert train.main(["--config-file", "configs/quickstart.yaml", "--root", str(folder / "my_photos"), "--output-dir",
                       str(folder / "run"), "DATASET.NAME", "ImageFolder", "ACTIVE.ROUNDS", "5", "ACTIVE.QUERY_SIZE", "4",
                       *blocks.SMOKE]) == 0
    return folder


@pytest.fixture
def folder(tmp_path, root, photos, monkeypatch) -> Path:
    """The working folder of a reader: the project, and what the pages take for granted."""
    for name in PROJECT_FILES:
        (tmp_path / name).symlink_to(PROJECT / name)
    (tmp_path / "data").symlink_to(root)
    for name in ("output", "new_photos", "my_data"):
        (tmp_path / name).mkdir()
    shutil.copytree(photos / "my_photos", tmp_path / "my_photos")
    (tmp_path / "output" / "photos").symlink_to(photos / "run")
    for name in ("a.jpg", "b.png", "one.jpg", "new_photos/c.png"):
        Image.new("RGB", (40, 50), (200, 0, 0)).save(tmp_path / name)
    rows = [f"{path.relative_to(photos)},{path.parent.name}" for path in sorted((photos / "my_photos").rglob("*.png"))]
    shutil.copytree(photos / "my_photos", tmp_path / "my_data" / "my_photos")
    (tmp_path / "my_data" / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    forks = SimpleNamespace(**vars(subprocess) | {"Popen": commands.popen, "run": commands.run})
    for module in (local, verify):
        monkeypatch.setattr(module, "subprocess", forks)
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: {0}, raising=False)
    monkeypatch.setattr(local.os, "cpu_count", lambda: 1)
    return tmp_path
