"""TensorBoard: said to be missing, or written."""

import sys

import pytest

import train
from active.board import FOLDER, check_tensorboard
from dassl.utils.errors import ConfigError
from tests.active.test_loop import toy_run


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    """Before anything is loaded."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"LOG\.TENSORBOARD needs the package tensorboard .*: pip install tensorboard"):
        check_tensorboard()


def test_the_key_is_checked_with_the_config(monkeypatch):
    """The command line asks for the package only where the key is on."""
    asked = []
    monkeypatch.setattr(train, "check_tensorboard", lambda: asked.append(1))
    for value in ("false", "true"):
        train.check(train.build_config(*train.parser().parse(
            ["--config-file", "configs/quickstart.yaml", "LOG.TENSORBOARD", value])))
    assert asked == [1]


def test_every_round_is_written(tmp_path):
    """Each number of each round stands over the labels so far, and a continued run adds the rest."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, stop=("fit", 2), LOG__TENSORBOARD=True)
    result, _ = toy_run(tmp_path, LOG__TENSORBOARD=True)
    written = {}
    for file in sorted((tmp_path / FOLDER).iterdir()):
        events = EventAccumulator(str(file)).Reload()
        for name in events.Tags()["scalars"]:
            written.setdefault(name, []).extend((point.step, point.value) for point in events.Scalars(name))
    assert written["accuracy"] == [(record.n_labeled, pytest.approx(record.accuracy)) for record in result.rounds]
    assert {"macro_f1", "ece", "n_paid", "seconds/fit"} <= written.keys()
