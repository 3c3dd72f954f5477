"""Code blocks of Markdown pages, and how they are executed: in a folder that has what their text takes for granted.

A block is executed unless a comment right before it says why not: `<!-- not run: it needs a GPU -->`. A comment
`<!-- exits with 2 -->` says what its last command ends with. A block whose first line is a comment with a file name
(`# my_sampler.py`) is written to that file. Other Python is executed, all of a page in one namespace; YAML is read; shell
commands run one by one, those of this project in this process, with few epochs. `text` is output, no code.
"""

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

import train
from scripts import extract
from tests import commands
from trainers.core import job

LANGUAGES = ("bash", "python", "yaml", "text")
SMOKE = ("OPTIM.MAX_EPOCH", "2")  # of a run, in place of the minutes that it may take
WAITS_FOR_PEOPLE = 3


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: `mark` is the comment before it, without its dashes, or ""."""

    page: str
    line: int
    language: str
    text: str
    mark: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The file that the block is, by its first line, or ""."""
        found = re.match(r"# ([\w/]+\.(?:py|yaml))\n", self.text)
        return found[1] if found else ""

    @property
    def why_not_run(self) -> str:
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else ""

    @property
    def exit_codes(self) -> tuple[int, ...]:
        return (int(self.mark.removeprefix("exits with ")),) if self.mark.startswith("exits with ") else ()


def blocks_of(text: str, page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in their order; ValueError for a fence that nothing closes."""
    lines = iter(enumerate(text.splitlines(), 1))
    before = ""
    for number, line in lines:
        if (fence := re.match(r"(`{3,})(\w*)$", line)) is None:
            before = line
            continue
        content: list[str] = []
        for _, inside in lines:
            if inside == fence[1]:
                break
            content.append(inside)
        else:
            raise ValueError(f"{page}:{number}: the block is not closed")
        mark = re.fullmatch(r"<!-- (.+) -->", before)
        yield Block(page, number, fence[2], "\n".join(content) + "\n", mark[1] if mark else "")
        before = ""


def shell_commands(text: str) -> list[list[str]]:
    """Return the commands of a shell block as words; backslashes join lines, comments are left out."""
    return [words for line in text.replace("\\\n", " ").splitlines() if (words := shlex.split(line, comments=True))]


class Session:
    """The blocks of a page, executed one after the other in the working folder."""

    def __init__(self):
        self.names: dict = {"__name__": "page"}

    def execute(self, block: Block) -> None:
        """Execute a block; AssertionError, naming it, for a command of another exit code than it says."""
        if block.file:
            Path(block.file).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, block.where, "exec"), self.names)
        elif block.language == "yaml":
            assert isinstance(yaml.safe_load(block.text), (dict, list)), block.where
        elif block.language == "bash":
            *others, last = shell_commands(block.text)
            for words in others:
                assert executed(words) in usual(words), f"{block.where}: {words}"
            assert executed(last) in (block.exit_codes or usual(last)), f"{block.where}: {last}"


def usual(words: list[str]) -> tuple[int, ...]:
    """Return the exit codes of a command that works: a run that people label by files waits for them, unless it is done."""
    return (0, WAITS_FOR_PEOPLE) if {"ACTIVE.ORACLE", "file"} <= set(words) else (0,)


def executed(words: list[str]) -> int:
    """Execute a command line of Python and return its exit code; `> file` takes what it prints."""
    words, target = (words[:-2], words[-1]) if ">" in words else (words, None)
    assert words[0] == "python", f"only Python is executed here, not {words}; say before the block why it is not run"
    main = command_of(words)
    if main is not None and target is None:
        rest = words[3:] if words[1] == "-m" else words[2:]
        return main([*rest, *(SMOKE if words[1] == "train.py" else ())])
    done = commands.run([sys.executable, *words[1:]], capture_output=True, text=True)
    if target:
        Path(target).write_text(done.stdout)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
    return done.returncode


def command_of(words: list[str]):
    """Return the `main` of a command of this project, None for any other."""
    name = words[2] if words[1] == "-m" else words[1].removesuffix(".py").replace("/", ".")
    if name == "train":
        return train.main
    if name.split(".")[0] in ("scripts", "datasets", "active", "benchmarks"):
        return importlib.import_module(name).main
    return None


def check_words(words: list[str]) -> None:
    """Raise UserError, or exit as argparse does, for a command of this project whose words it would refuse."""
    main = command_of(words)
    rest = words[3:] if words[1] == "-m" else words[2:]
    if words[1] == "train.py":
        cfg = job.build_config(*job.parser().parse(rest))
        job.check(cfg)
    elif words[1] == "scripts/sweep.py":
        assert main([*rest, "--list"]) == 0
    elif words[1] == "scripts/extract.py":
        job.build_config(*job.parser().parse(extract.words_of(*extract.parser().parse(rest))))
    elif parser := main and getattr(sys.modules[main.__module__], "parser", None):
        parser().parse_args(rest)
