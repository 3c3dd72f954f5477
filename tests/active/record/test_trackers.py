"""Trackers: what they are told, in which run, and what happens to a run whose tracker fails. The packages are stand-ins."""

import json
import logging
import sys
from dataclasses import replace

import pytest
from PIL import Image

from active.build import carry_out
from active.record.recorders import Forgiven
from active.record.results import RunResult, numbers
from active.record.trackers.mlflow import MLflow
from active.record.trackers.told import Tracker
from active.record.trackers.wandb import WandB
from dassl.engine.fit import Epochs
from dassl.utils.errors import ConfigError, TrainingError, UserError
from tests.active.record import services
from tests.active.test_loop import toy_run
from tests.active.toy import ToyTrainer, record_of, toy_config, toy_task
from trainers.core import job

RATES = [0.1, 0.05, 0.01]


@pytest.fixture(params=[services.WandB, services.MLflow], ids=["wandb", "mlflow"])
def service(request, monkeypatch):
    return request.param().installed(monkeypatch)


class Epochal(ToyTrainer):
    """A trainer whose models have losses, those of round r above 10 r."""

    def fit(self, rows, labels, round):
        model = super().fit(rows, labels, round)
        model.losses = Epochs()
        model.losses += [10 * round + 3.0, 10 * round + 2.0, 10 * round + 1.5]
        model.losses.rates = RATES
        return model


def tracked(folder, service, **values):
    """Return the record of a run on real image files that reports to a service."""
    dataset, features, texts = toy_task()
    for row, datum in enumerate(dataset.train):
        path = folder / "images" / datum.path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (4 * row, 0, 0)).save(path)
    cfg = toy_config(folder / "run", LOG__TRACKERS=f"[{service.name}]", **values)
    return carry_out(cfg, replace(dataset, root=folder / "images"), Epochal(features, texts), certificate={"code": "abc"})


def check_whole(service, result, losses_of=range(4)):
    """Check that the one run at a service holds all of a record, each thing once, and the losses of some rounds."""
    run = service.only
    for record in result.rounds:
        for name, value in numbers(record).items():
            assert run.points[name, record.n_labeled][0] == value
    for round in range(len(result.rounds)):
        series = {name: [run.points.get((f"{name}/fit/round_{round:03d}", epoch), (None,))[0] for epoch in range(3)]
                  for name in ("loss", "learning_rate")}
        expected = {"loss": [10 * round + 3.0, 10 * round + 2.0, 10 * round + 1.5], "learning_rate": RATES}
        assert series == (expected if round in losses_of else dict.fromkeys(expected, [None] * 3))
    assert run.images == {(name, round) for name in ("learning_curve", "query") for round in range(len(result.rounds))}
    assert run.config == json.loads(json.dumps(result.config)) and run.certificate == result.certificate
    assert run.status == result.status == "finished" and not run.repeated


def test_all_of_a_round_is_told_once(tmp_path, service):
    """Numbers over labels, losses and rates over epochs, curve and contact sheet, config and certificate."""
    check_whole(service, tracked(tmp_path, service))
    assert service.only.n_starts == 1


def test_a_tracker_changes_no_number(tmp_path, service):
    """Seconds and memory aside, the record is that of a run without one."""
    assert record_of(tracked(tmp_path, service)) == record_of(toy_run(tmp_path / "without")[0])


@pytest.mark.parametrize(("moment", "lacking"), [("tell", [1]), ("_note", [])])
def test_a_run_that_is_killed_goes_on_in_the_same_run(tmp_path, service, monkeypatch, moment, lacking):
    """Each round appears once, whether or not the tracker was told before the kill. The losses of a round not told are lost."""
    owner = Tracker if moment == "_note" else {"wandb": WandB, "mlflow": MLflow}[service.name]
    original = getattr(owner, moment)

    def stop(self, *arguments):
        if self.n_told == (1 if moment == "tell" else 2):
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(owner, moment, stop)
        tracked(tmp_path, service)
    assert len(RunResult.read(tmp_path / "run" / "results.json").rounds) == 2
    result = tracked(tmp_path, service)
    repeated, service.only.repeated = service.only.repeated, []
    assert bool(repeated) == (moment == "_note" and service.name == "wandb")  # where its own rule drops what comes again
    check_whole(service, result, losses_of={0, 1, 2, 3} - {*lacking})
    assert service.only.n_starts == 2


def test_a_run_that_gets_more_rounds_goes_on_in_the_same_run(tmp_path, service):
    """This also holds for a finished run."""
    tracked(tmp_path, service, ACTIVE__ROUNDS=2)
    check_whole(service, tracked(tmp_path, service))
    assert service.only.n_starts == 2


def test_a_tracker_that_fails_loses_no_round_and_is_told_it_at_the_end(tmp_path, service, monkeypatch, caplog):
    """Row 46 of the faults table: one line reports it, once. The tracker is not tried again until the end, to save time."""
    n_calls = []

    def note(result, path):
        n_calls.append(service.n_calls)
        service.is_away = len(result.rounds) in (2, 3)
        return write(result, path)

    write = RunResult.write
    monkeypatch.setattr(RunResult, "write", note)
    with caplog.at_level(logging.WARNING):
        result = tracked(tmp_path, service)
    check_whole(service, result)
    assert record_of(result) == record_of(toy_run(tmp_path / "without")[0])
    said = [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]
    assert said == [f"the run goes on without the tracker {service.name} until its end, and is recorded all the same: the "
                    "service cannot be reached"]
    assert n_calls[4] == n_calls[3]  # round 2 was not tried


def test_a_tracker_that_comes_late_is_told_everything_at_the_end(tmp_path, service, monkeypatch):
    """Its start is tried again, in the same process."""
    service.is_away, end = True, Forgiven.end

    def come(self, result):
        service.is_away = False
        end(self, result)

    monkeypatch.setattr(Forgiven, "end", come)
    check_whole(service, tracked(tmp_path, service))


def test_a_tracker_that_is_never_there_loses_nothing_but_losses(tmp_path, service, caplog):
    """When the same run gets more rounds, all rounds of the record are sent."""
    service.is_away = True
    with caplog.at_level(logging.WARNING):
        assert tracked(tmp_path, service, ACTIVE__ROUNDS=2).status == "finished"
    meanwhile, at_the_end = (line.getMessage() for line in caplog.records)
    assert "until its end" in meanwhile and at_the_end.endswith("recorded all the same: the service cannot be reached")
    assert at_the_end.startswith(f"the tracker {service.name} was not told all of the run")
    service.is_away = False
    check_whole(service, tracked(tmp_path, service), losses_of=[2, 3])


def test_ctrl_c_while_a_tracker_is_told_stops_the_run(tmp_path, service, monkeypatch):
    """It is not a failure of the tracker."""
    monkeypatch.setattr(service, "answer", lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        tracked(tmp_path, service)


def test_a_service_that_has_forgotten_the_run_is_told_all_of_it(tmp_path, monkeypatch):
    """MLflow reports it. The database may have been deleted, or it may be another one."""
    tracked(tmp_path, services.MLflow().installed(monkeypatch), ACTIVE__ROUNDS=2)
    other = services.MLflow().installed(monkeypatch)
    check_whole(other, tracked(tmp_path, other), losses_of=[2, 3])


def test_images_that_are_gone_leave_the_sheet_out(tmp_path, service, caplog):
    """Everything else is still sent, and one line reports it."""
    dataset, features, texts = toy_task()
    carry_out(toy_config(tmp_path, LOG__TRACKERS=f"[{service.name}]", ACTIVE__ROUNDS=1), dataset, Epochal(features, texts))
    assert service.only.images == {("learning_curve", 0)} and service.only.status == "finished"
    assert "round 0 has no contact sheet: cannot read nowhere" in caplog.text


def test_a_damaged_note_is_named(tmp_path, service, caplog):
    """The run goes on, without the tracker."""
    tracked(tmp_path, service, ACTIVE__ROUNDS=2)
    (tmp_path / "run" / "recorders" / f"{service.name}.json").write_text('{"run": 3}')
    assert len(tracked(tmp_path, service).rounds) == 4
    assert f"recorders/{service.name}.json is damaged; without it the run begins anew at {service.name}" in caplog.text


def test_a_failed_run_is_told_as_one(tmp_path, service, monkeypatch):
    """The loss is not a number. The rounds before it are sent."""
    fit = Epochal.fit

    def fit_once(self, rows, labels, round):
        if round:
            raise TrainingError("the loss is nan")
        return fit(self, rows, labels, round)

    monkeypatch.setattr(Epochal, "fit", fit_once)
    with pytest.raises(TrainingError):
        tracked(tmp_path, service)
    assert service.only.status == "failed" and ("accuracy", 6) in service.only.points


def test_tensorboard_among_trackers_may_fail(tmp_path, caplog):
    """A write error ends the run under LOG.TENSORBOARD, but is only one line under LOG.TRACKERS."""
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write"):
        toy_run(tmp_path, LOG__TENSORBOARD=True)
    result, _ = toy_run(tmp_path, LOG__TRACKERS="[tensorboard]")
    assert result.status == "finished" and "without the tracker tensorboard" in caplog.text


@pytest.mark.parametrize(("tracker", "command"), [
    ("wandb", "pip install -r requirements-trackers.txt"), ("mlflow", "pip install -r requirements-trackers.txt"),
    ("tensorboard", "pip install tensorboard")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, tracker, command):
    """Row 45 of the faults table: in one line, before anything is loaded."""
    for name in [tracker, *(name for name in sys.modules if name.startswith(f"{tracker}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    words = ["--config-file", "configs/quickstart.yaml", "LOG.TRACKERS", f"[{tracker}]"]
    with pytest.raises(ConfigError) as error:
        job.check(job.build_config(*job.parser().parse(words)))
    assert str(error.value).endswith(command) and "\n" not in str(error.value)


def test_where_a_tracker_is_stands_in_no_record(tmp_path, monkeypatch):
    """An address may hold a password."""
    service = services.MLflow().installed(monkeypatch)
    words = ["--config-file", "configs/quickstart.yaml", "LOG.TRACKERS", "[mlflow]", "LOG.MLFLOW.URI", "http://me:secret@host"]
    cfg = job.build_config(*job.parser().parse(words))
    job.settle(cfg)
    assert cfg.LOG.MLFLOW.URI == "http://me:secret@host" and "secret" not in json.dumps(job.as_dict(cfg))
    assert "WANDB" not in cfg.LOG and not service.runs
