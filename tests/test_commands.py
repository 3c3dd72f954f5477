"""Commands in forks behave like commands started from the shell."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import train
from tests import commands

SAYS = """
import os, signal, sys
print(__name__, sys.argv, os.getcwd(), os.environ["MARK"], sys.stdin.read(), sys.path[0], signal.getsignal(signal.SIGINT),
      os.getpgid(0) == os.getpid(), [name for name in sys.modules if name in ("pytest", "train", "dassl")])
print("was said", file=sys.stderr)
sys.exit(3)
"""


@pytest.fixture
def script(tmp_path) -> Path:
    """A script in a folder of its own, that says what it has got and ends with code 3."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "says.py").write_text(SAYS)
    return tmp_path / "code" / "says.py"


@pytest.mark.starts
@pytest.mark.parametrize("form", ["script", "module", "code"])
def test_a_fork_gets_what_a_start_gets(script, tmp_path, form):
    """Name, arguments, folder, environment, input, module path, handlers and group; its streams and its exit code come back."""
    first, folder = {"script": ([script], tmp_path), "module": (["-m", "says"], script.parent),
                     "code": (["-c", SAYS], tmp_path)}[form]
    told = []
    for start in (subprocess.Popen, commands.popen):
        with start([sys.executable, *first, "a", "B c"], cwd=folder, env=os.environ | {"MARK": "mark"}, text=True,
                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
            told.append((*process.communicate("from here"), process.returncode))
    assert isinstance(process, commands.Fork)
    assert told[0] == told[1]
    assert "mark from here" in told[0][0] and told[0][1:] == ("was said\n", 3)


def test_a_run_in_a_fork_is_bit_for_bit_that_of_this_process(tmp_path, capsys):
    """Picks, metrics and prompts agree. `test_train.py` compares this process with a command that is started in full."""
    words = ["--config-file", "configs/quickstart.yaml", "--root", str(tmp_path / "data"), "ACTIVE.ROUNDS", "2",
             "OPTIM.MAX_EPOCH", "3", "--output-dir"]
    done = commands.run([sys.executable, "train.py", *words, tmp_path / "fork"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert train.main([*words, str(tmp_path / "here")]) == 0
    files = []
    for name in ("here", "fork"):
        record = json.loads((tmp_path / name / "results.json").read_text())
        files.append([path.read_bytes() for path in sorted((tmp_path / name / "prompts").iterdir())])
        files[-1] += [(own["queried"], own["metrics"], own["files"]) for own in record["rounds"]]
    assert files[0] == files[1] and len(files[0]) == 4
    assert (tmp_path / "fork" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_fork_can_be_read_signaled_and_killed():
    """It is read line by line while it runs. The exit code is minus the signal number."""
    code = "import time\nprint('begun', flush=True)\ntime.sleep(240)"
    for number in (signal.SIGKILL, signal.SIGTERM):
        with commands.popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "begun\n" and process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
            process.send_signal(number)
            assert process.wait(240) == -number


def test_ctrl_c_is_an_exception_in_a_fork():
    """This must hold as in a full start, whatever the server does with the signal."""
    code = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('came')"
    assert commands.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "came\n"


def test_a_fork_ends_as_python_does():
    """Exit handlers run; an error gives a traceback and code 1."""
    code = "import atexit\natexit.register(print, 'at the end')\nraise ValueError('of the command')"
    done = commands.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "at the end\n" and "ValueError: of the command" in done.stderr
    with pytest.raises(subprocess.CalledProcessError):
        commands.run([sys.executable, "-c", code], capture_output=True, check=True)


@pytest.mark.starts
@pytest.mark.parametrize(("flags", "variables"), [(["-W", "error"], {}), ([], {"OMP_NUM_THREADS": "2"}),
                                                  ([], {"PYTHONHASHSEED": "1"})])
def test_what_a_fork_cannot_be_given_makes_a_start(flags, variables):
    """Python flags, and variables that are read before the first line, cannot be given to a fork."""
    with commands.popen([sys.executable, *flags, "-c", ""], env=os.environ | variables) as process:
        assert isinstance(process, subprocess.Popen)
    assert process.returncode == 0


def test_a_fork_has_no_seconds_of_imports():
    """In a full start, a command that imports torch and open_clip spends that CPU time first."""
    code = "import time, torch, open_clip, sklearn.cluster, pandas; print(time.process_time())"
    assert float(commands.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) < 1


def test_the_server_has_one_thread():
    """Forks would lack any other thread."""
    code = "import os; print(len(os.listdir(f'/proc/{os.getppid()}/task')))"
    if sys.platform == "linux":
        assert commands.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"
