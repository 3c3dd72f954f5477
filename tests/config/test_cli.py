"""Flags and KEY VALUE pairs on one command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dassl.config.cli import Parser, count
from dassl.utils.errors import ConfigError
from tests import commands
from tests.active.analysis.made import write_run

PROJECT = Path(__file__).parents[2]


def parser() -> Parser:
    flags = Parser(prog="run")
    flags.add_argument("--config-file", nargs="+", action="extend", default=[])
    flags.add_argument("--root")
    flags.add_argument("--seed")
    flags.add_argument("--list", action="store_true")
    return flags


@pytest.mark.parametrize("line", [
    "OPTIM.LR 1 SEED -1 --config-file a.yaml b.yaml --root data --list",
    "--config-file a.yaml b.yaml OPTIM.LR 1 --root data SEED -1 --list",
    "--list --root data --config-file a.yaml b.yaml OPTIM.LR 1 SEED -1",
    "OPTIM.LR 1 --config-file a.yaml SEED -1 --list --config-file b.yaml --root=data",
])
def test_pairs_may_stand_before_between_and_after_flags(line):
    """The position of the pairs changes neither flags nor pairs, and the pairs keep their order."""
    flags, pairs = parser().parse(line.split())
    assert vars(flags) == {"config_file": ["a.yaml", "b.yaml"], "root": "data", "seed": None, "list": True}
    assert pairs == [("OPTIM.LR", "1"), ("SEED", "-1")]


@pytest.mark.parametrize(("line", "flag", "value"), [
    ("--root DATA SEED 1", "root", "DATA"),
    ("--root=DATA SEED 1", "root", "DATA"),
    ("--seed -1 SEED 1", "seed", "-1"),
])
def test_the_value_of_a_flag_is_no_key(line, flag, value):
    """An upper-case or negative word right after a flag that takes one value belongs to that flag."""
    flags, pairs = parser().parse(line.split())
    assert getattr(flags, flag) == value
    assert pairs == [("SEED", "1")]


@pytest.mark.parametrize(("words", "pair"), [
    (["TRAINER.NAME", "COOP"], ("TRAINER.NAME", "COOP")),
    (["INPUT.SIZE", "(64, 32)"], ("INPUT.SIZE", "(64, 32)")),
    (["CACHE_DIR", ""], ("CACHE_DIR", "")),
    (["TRAINER.COOP.N_CTX", "4"], ("TRAINER.COOP.N_CTX", "4")),
])
def test_the_word_after_a_key_is_its_value(words, pair):
    """Upper-case words, words with spaces and empty words are used as values unchanged."""
    assert parser().parse(words)[1] == [pair]


@pytest.mark.parametrize(("line", "parts"), [
    ("OPTIM.LR", ["OPTIM.LR has no value"]),
    ("--list OPTIM.LR --seed 1", ["OPTIM.LR has no value"]),
    ("--seed", ["--seed", "expected one argument"]),
    ("--seed --root DATA", ["--seed", "expected one argument"]),
    ("--config-file OPTIM.LR 1", ["--config-file", "expected at least one argument"]),
    ("OPTIM.LR 1 --sed 2", ["unknown flag --sed", "'--seed'"]),
    ("--conf a.yaml", ["unknown flag --conf", "'--config-file'"]),
    ("--sed=2", ["unknown flag --sed=2", "'--seed'"]),
    ("OPTIM.LR 1 2", ["'2'", "KEY VALUE"]),
    ("optim.lr 1", ["'optim.lr'", "upper case"]),
    ("--root a\0b", ["NUL byte"]), ("SEED \ud800", ["half of a character"]), ("--list \0", ["NUL byte"]),
    ("--a\x1b[2J", ["unknown flag '--a"]),
])
def test_a_wrong_command_line_is_one_line(line, parts):
    """The line names the word that is wrong and the nearest flag (row 14 of the faults table)."""
    with pytest.raises(ConfigError) as caught:
        parser().parse(line.split())
    assert "\n" not in str(caught.value)
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize(("text", "number"), [
    ("1", 1), ("1024", 1024), ("0", 0), ("1025", 0), ("-1", 0), ("1e3", 0), ("9" * 5000, 0)])
def test_a_number_of_threads_is_bounded(text, number):
    """A typing error must not start a million processes."""
    flags = parser()
    flags.add_argument("--workers", type=count)
    if number:
        assert flags.parse(["--workers", text])[0].workers == number
    else:
        with pytest.raises(ConfigError, match=r"--workers: .* is not a whole number from 1 to 1024"):
            flags.parse(["--workers", text])


@pytest.mark.parametrize(("start", "words"), [
    (commands.run, ["scripts/sweep.py", "--list", "--config-file", "configs/experiments/tiny.yaml"]),
    pytest.param(subprocess.run, ["scripts/summarize.py", "RUNS"], marks=pytest.mark.starts)])
def test_a_reader_that_has_gone_ends_a_command_quietly(tmp_path, start, words):
    """With `... | head`, neither the command nor Python's last flush prints a traceback."""
    write_run(tmp_path / "run", [0.4])
    read, write = os.pipe()
    os.close(read)
    done = start([sys.executable, *(word.replace("RUNS", str(tmp_path)) for word in words)], stdout=write,
                 stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


PRINTS = "from dassl.config.cli import command; command('x.py', lambda: print('a' * 100_000) or 0)"


def started(code: str, streams: str) -> subprocess.CompletedProcess:
    """Run Python code with its standard streams redirected by the shell."""
    return subprocess.run(["bash", "-c", f'exec "$0" -W error -c "$1" {streams}', sys.executable, code], stderr=subprocess.PIPE,
                          text=True)


@pytest.mark.parametrize(("streams", "expected"), [
    ("> /dev/full", (1, "x.py: cannot write the output: No space left on device\n")), (">&-", (0, "")), (">&- <&-", (0, "")),
    ("> /dev/null", (0, ""))])
def test_an_output_that_cannot_be_written_is_one_line(streams, expected):
    """Row 11: a full disk behind the output is reported; a closed output is not an error."""
    done = started(PRINTS, streams)
    assert (done.returncode, done.stderr) == expected


def test_text_that_the_terminal_cannot_show_is_escaped():
    """This also covers lone surrogates and file names that are not text, in whatever a command prints (row 22)."""
    code = r"from dassl.config.cli import command; command('x.py', lambda: print('\ud800 caf\udce9 \u2603') or 0)"
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ascii_only)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\ud800 caf\\udce9 \\u2603\n", "")


def test_a_closed_error_stream_is_no_trace_in_the_output(tmp_path):
    """No file of the run gets the closed stream's number either."""
    code = ("import os; from dassl.config.cli import command; "
            f"command('x.py', lambda: os.write(2, b'x') and int(open({str(tmp_path / 'f')!r}, 'w').fileno() < 3))")
    assert started(code, "2>&- >&-").returncode == 0
    assert (tmp_path / "f").read_bytes() == b""


@pytest.mark.parametrize(("signals", "code"), [(["SIGINT"], 130), (["SIGTERM"], 143), (["SIGTERM", "SIGTERM"], 143)])
def test_a_signal_that_a_command_does_not_answer_ends_it_quietly(signals, code):
    """This includes a second signal while the first one is being handled."""
    kill = "".join(f"os.kill(os.getpid(), signal.{name})\n    " for name in signals[:1])
    again = "".join(f"os.kill(os.getpid(), signal.{name})\n        " for name in signals[1:])
    done = started(f"""
import os, signal
from dassl.config.cli import command
from dassl.utils.events import stop_on_sigterm
def main():
    stop_on_sigterm()
    try:
        {kill.strip()}
        signal.pause()
    except KeyboardInterrupt:
        {again or 'pass'}
        raise
command('x.py', main)""", "")
    assert (done.returncode, done.stderr) == (code, "")


def test_every_command_ends_through_command():
    """Each file that people run ends with `command(<its name>, main)`."""
    files = [PROJECT / "train.py", *PROJECT.glob("scripts/*.py"), *PROJECT.glob("datasets/*.py"), *PROJECT.glob("active/*.py")]
    mains = {file: text for file in files if 'if __name__ == "__main__":' in (text := file.read_text()).splitlines()}
    assert len(mains) >= 9
    for file, text in mains.items():
        name = file.name if file.parent.name not in ("datasets", "active") else f"{file.parent.name}.{file.stem}"
        assert text.endswith(f'if __name__ == "__main__":\n    command("{name}", main)\n'), file
