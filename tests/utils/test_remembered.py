"""What a start remembers of components for the next one, and when it is not believed."""

import json
import subprocess
import sys

import pytest

from active.registry import SAMPLERS
from dassl.data.dataset import DATASETS
from dassl.utils import remembered
from dassl.utils.environment import PROJECT
from dassl.utils.registry import AtLeast, AtMost, Parameter, _referred
from dassl.utils.remembered import Reference, recall, remember
from trainers.registry import LEARNERS

HOMES = {"active.samplers": SAMPLERS, "trainers": LEARNERS, "datasets": DATASETS}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The file that stands for that of a package."""
    monkeypatch.setattr(remembered, "_file", lambda home: tmp_path / f"{home}.json")
    return tmp_path / "home.json"


@pytest.mark.parametrize("home", HOMES)
def test_components_come_back_as_they_were(home, file):
    """Parameters keep defaults, types, choices, bounds and markers. Functions are stored as references."""
    components = [one if isinstance(one.build, Reference) else _referred(one) for one in HOMES[home]]
    remember(home, components)
    again = recall(home)
    assert again == components and [type(one) for one in again] == [type(one) for one in components]
    for component, kept in zip(HOMES[home], again, strict=True):
        assert kept.build.resolve() is getattr(component.build, "resolve", lambda: component.build)()  # noqa: B023


def test_lists_and_tuples_stay_what_they_are(file):
    """A default of () does not become []."""
    parameter = Parameter("sizes", (1, 2), (tuple, list), (None, "a"), extras=(AtLeast(1), AtMost(3.5), [()]))
    remember("home", {"x": [parameter]})
    assert recall("home") == {"x": [parameter]}


@pytest.mark.parametrize("change", [
    lambda kept: kept | {"code": "other"}, lambda kept: kept | {"value": ["list", 2]}, lambda kept: kept | {"checksum": ""},
    lambda kept: [], lambda kept: {"code": kept["code"]}])
def test_what_is_damaged_or_of_other_code_is_not_believed(file, change):
    """It is made again."""
    remember("home", [1])
    assert recall("home") == [1]
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    assert recall("home") is None
    file.write_bytes(b"\x00{")
    assert recall("home") is None


def test_a_file_makes_nothing_but_what_is_the_project_s(file):
    """No class of another package is looked up, whatever the file says and however well it is signed."""
    remember("home", [1])
    kept = json.loads(file.read_text())
    value = ["subprocess:Popen", "true"]
    file.write_text(json.dumps(kept | {"value": value, "checksum": remembered.json_hash(value)}))
    assert recall("home") is None


def test_what_has_no_name_is_refused(file):
    """A lambda cannot be imported."""
    with pytest.raises(ValueError, match="cannot be found by name"):
        Reference.of(lambda: None)
    with pytest.raises(ValueError, match="cannot be remembered"):
        remember("home", [object()])


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path, monkeypatch):
    """The next start has to import everything again."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(remembered, "_file", lambda home: tmp_path / "file" / "kept.json")
    remember("home", [1])
    assert recall("home") is None


LISTED = """
import sys
sys.argv = ["train.py", "--list"]
import train
assert train.main() == 0
print({"torch", "torchvision", "open_clip", "sklearn"} & sys.modules.keys(), file=sys.stderr)
"""


def test_a_second_start_lists_everything_without_torch():
    """The lines are the same, and none of the slow libraries is imported."""
    first, second = (subprocess.run([sys.executable, "-c", LISTED], cwd=PROJECT, capture_output=True, text=True, check=True)
                     for _ in range(2))
    assert first.stdout == second.stdout and "  badge" in second.stdout and "TRAINER.COOP: N_CTX=16" in second.stdout
    assert second.stderr == "set()\n"
