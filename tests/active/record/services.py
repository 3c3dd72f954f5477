"""Stand-ins for tracker packages, which are rarely installed. What they are told outlives the process that tells it."""

import sys
from types import ModuleType, SimpleNamespace

STEPS = 10**6  # of a round in the history at Weights & Biases


class Service:
    """What a service has been told, in one form for both: by run, its points {(name, step): value}, and what else there is.

    It fails while `is_away`.
    """

    def __init__(self):
        self.runs, self.is_away, self.n_calls = {}, False, 0

    def answer(self):
        self.n_calls += 1
        if self.is_away:
            raise ConnectionError("the service cannot be reached\nand says more")

    def run(self, name):
        return self.runs.setdefault(name, SimpleNamespace(
            points={}, images=set(), config={}, certificate={}, status="", n_starts=0, repeated=[]))

    @property
    def only(self):
        """Return the only run."""
        (run,) = self.runs.values()
        return run

    def installed(self, monkeypatch):
        for module in self.modules():
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return self


def module(name, **content):
    made = ModuleType(name)
    made.__dict__.update(content)
    return made


class WandB(Service):
    """`wandb`: a step that is not new is dropped, as in the real service. A resumed session starts after the last step."""

    name = "wandb"

    def __init__(self):
        super().__init__()
        self.taken = set()  # names of runs whose start failed: they are in use until all is torn down

    def modules(self):
        return [module("wandb", init=self.init, teardown=self.taken.clear, Image=lambda image: image.size, Settings=dict)]

    def init(self, *, id, resume, reinit, dir, **more):
        assert id not in self.taken, f"run ID {id} is in use"
        self.taken.add(id)
        self.answer()
        self.taken.discard(id)
        assert (resume, reinit) == ("allow", "create_new") and dir
        run = self.run(id)
        run.n_starts, run.status = run.n_starts + 1, "running"
        return Session(self, run)


class Session:
    def __init__(self, service, run):
        self.service, self.told, self.dir = service, run, "wandb/run-1/files"
        self.config, self.offline, self.url, self.last = self, False, "https://wandb.example/run", max(
            [step for _, step in run.points.values()], default=-1)

    def update(self, values, allow_val_change):
        assert allow_val_change
        self.told.certificate = values["certificate"]
        self.told.config = {name: value for name, value in values.items() if name != "certificate"}

    def define_metric(self, name, step_metric):
        self.service.answer()

    def log(self, row, step):
        self.service.answer()
        if step < self.last:
            return self.told.repeated.append(step)
        self.last, over = step, row.get("epoch", row.get("n_labeled"))
        for name, value in row.items():
            if isinstance(value, tuple):
                self.told.images.add((name, step // STEPS))
            elif name != "epoch":
                self.told.points[name, over] = value, step
        return None

    def finish(self, exit_code):
        self.service.answer()
        self.told.status = "failed" if exit_code else "finished"


class MLflow(Service):
    """`mlflow`: metrics are points that are never replaced, so one that is sent twice appears twice."""

    name = "mlflow"

    def modules(self):
        entities = {name: lambda *values: values for name in ("Metric", "Param")}
        return [module("mlflow", MlflowClient=lambda tracking_uri: Client(self)),
                module("mlflow.entities", **entities), module("mlflow.exceptions", MlflowException=ValueError)]


class Client:
    def __init__(self, service):
        service.answer()
        self.service = service

    def get_experiment_by_name(self, name):
        self.service.answer()
        return SimpleNamespace(experiment_id="1")

    def search_runs(self, experiments, filter, max_results):
        found = [name for name in self.service.runs if f"'{name}'" in filter]
        return [self._started(name) for name in found]

    def create_run(self, experiment, run_name, tags):
        return self._started(*tags.values())

    def _started(self, name):
        run = self.service.run(name)
        run.n_starts, run.status = run.n_starts + 1, "running"
        return SimpleNamespace(info=SimpleNamespace(run_id=name))

    def update_run(self, run, status):
        self.service.runs[run].status = status.lower()

    def log_dict(self, run, content, file):
        setattr(self.service.runs[run], file.removesuffix(".json"), content)

    def get_metric_history(self, run, name):
        points = self.service.runs[run].points.items()
        return [SimpleNamespace(value=value) for (key, _), (value, _) in points if key == name]

    def log_image(self, run, image, artifact_file):
        name, _, file = artifact_file.partition("/")
        self.service.runs[run].images.add((name, int(file.removeprefix("round_").removesuffix(".png"))))

    def log_batch(self, run, metrics=(), params=()):
        self.service.answer()
        own = self.service.runs[run]
        for name, value, _, step in metrics:
            if (name, step) in own.points:
                own.repeated.append(step)
            own.points[name, step] = value, step

    def set_terminated(self, run, status):
        self.service.answer()
        self.service.runs[run].status = status.lower()
