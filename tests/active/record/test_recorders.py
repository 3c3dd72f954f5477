"""TensorBoard: either reported as missing, or written."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from active.record.folder import clean
from active.record.recorders import RECORDERS
from active.record.results import RunResult
from active.record.trackers.tensorboard import TensorBoard, check_tensorboard
from dassl.utils.errors import ConfigError, UserError
from dassl.utils.run_folder import TENSORBOARD
from tests.active.record.test_trackers import RATES, tracked
from tests.active.test_loop import toy_run
from tests.utils.test_files import full_disk
from trainers.core import job


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    """The check comes before anything is loaded."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("tensorboard.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"LOG\.TRACKERS\) needs the package tensorboard .*: pip install tensorboard"):
        check_tensorboard()


def test_the_key_is_checked_with_the_config(monkeypatch):
    """The command line asks for the package only where the key is on."""
    asked = []
    monkeypatch.setitem(RECORDERS["tensorboard"].facts, "check", lambda: asked.append(1))
    for value in ("false", "true"):
        job.check(job.build_config(*job.parser().parse(
            ["--config-file", "configs/quickstart.yaml", "LOG.TENSORBOARD", value])))
    assert asked == [1]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what TensorBoard itself reads in a folder: by name, labels and value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {name: [(point.step, point.value) for point in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.mark.parametrize("stop", ["add_round", "write"])
def test_every_round_is_written_once(tmp_path, monkeypatch, stop):
    """Each number of a round is plotted over the labels so far. A stop between board and record loses and repeats none."""
    calls = []

    def stop_at_the_second(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    owner = TensorBoard if stop == "add_round" else RunResult
    original = getattr(owner, stop)
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(owner, stop, stop_at_the_second)
        toy_run(tmp_path, LOG__TENSORBOARD=True)
    result, _ = toy_run(tmp_path, LOG__TENSORBOARD=True)
    written = scalars(tmp_path / TENSORBOARD)
    assert written["accuracy"] == [(record.n_labeled, pytest.approx(record.accuracy)) for record in result.rounds]
    assert {"macro_f1", "ece", "n_paid", "seconds/fit"} <= written.keys()


def test_losses_stand_over_the_epochs(tmp_path):
    """Each fit of each round has its own."""
    result, _ = toy_run(tmp_path)
    TensorBoard(tmp_path).add_round(result, {"fit": [2.0, 1.5], "fit_selector": [0.5]})
    written = scalars(tmp_path / TENSORBOARD)
    assert written["loss/fit/round_003"] == [(0, 2.0), (1, 1.5)] and written["loss/fit_selector/round_003"] == [(0, 0.5)]


def test_rates_images_config_and_certificate_are_shown(tmp_path):
    """A rate beside each loss; the curve, and the contact sheet where there are images; the certificate as text."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = tracked(tmp_path, SimpleNamespace(name="tensorboard"))
    events = EventAccumulator(str(tmp_path / "run" / TENSORBOARD)).Reload()
    rates = [(point.step, point.value) for point in events.Scalars("learning_rate/fit/round_003")]
    assert rates == [(epoch, pytest.approx(rate)) for epoch, rate in enumerate(RATES)]
    for name in ("learning_curve", "query"):
        images = events.Images(name)
        assert [image.step for image in images] == [record.n_labeled for record in result.rounds]
        assert all(image.encoded_image_string.startswith(b"\x89PNG") for image in images)
    assert '"code": "abc"' in events.Tensors("certificate")[0].tensor_proto.string_val[0].decode()
    assert '"SAMPLER": "random"' in events.Tensors("config")[0].tensor_proto.string_val[0].decode()


def test_rounds_of_before_are_written_when_the_run_goes_on(tmp_path):
    """Losses are missing, as no record holds them. Losses that are already there stay as they are."""
    toy_run(tmp_path, ACTIVE__ROUNDS=2)
    result, _ = toy_run(tmp_path, LOG__TENSORBOARD=True)
    assert scalars(tmp_path / TENSORBOARD)["n_paid"] == [(record.n_labeled, record.n_paid) for record in result.rounds]


def test_a_full_disk_is_named(tmp_path):
    """Row 11 of the faults table: one error with the path, and no half-written event file."""
    result, _ = toy_run(tmp_path)
    with full_disk(100), pytest.raises(UserError, match=r"cannot write .*round_003: File too large"):
        TensorBoard(tmp_path).add_round(result, {})
    assert not list((tmp_path / TENSORBOARD).iterdir())


def test_what_killed_processes_left_is_cleared_away(tmp_path):
    """Row 9 of the faults table."""
    (tmp_path / TENSORBOARD).mkdir()
    (tmp_path / TENSORBOARD / ".events.out.tfevents.round_000.abcd1234.tmp").touch()
    clean(tmp_path)
    assert not list((tmp_path / TENSORBOARD).iterdir())
