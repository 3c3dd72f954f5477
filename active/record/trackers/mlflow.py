"""MLflow: a server, a database file, or, where its version still allows it, a folder."""

import io
import time
from pathlib import Path
from typing import Annotated, Any

from PIL import Image

from active.record.recorders import RECORDERS
from active.record.results import RunResult
from active.record.trackers.told import Told, Tracker, title
from dassl.config.defaults import Place
from dassl.config.merge import leaves
from dassl.data.dataset import Dataset
from dassl.utils.extras import required
from dassl.utils.registry import Given

TAG = "active.run"  # by which a continued run is found again
BATCH = 1000  # metrics that MLflow takes in one call
LENGTH = 500  # letters of a parameter that every store accepts


def check_mlflow() -> None:
    """Raise ConfigError unless the package is installed."""
    required("mlflow", "runs that are shown in MLflow (LOG.TRACKERS)", "requirements-trackers.txt")


@RECORDERS.register("mlflow", check=check_mlflow)
class MLflow(Tracker):
    """Numbers are plotted over the labels so far, losses and rates over a round's epochs; images and config are artifacts.

    "" for `uri` leaves it to MLflow: MLFLOW_TRACKING_URI, or a database in the working folder.
    """

    service = "mlflow"

    def __init__(self, output: Path, *, uri: Place = "", experiment: Place = "active-prompt-learning",
                 dataset: Annotated[Dataset | None, Given()] = None):
        super().__init__(output, dataset)
        self._uri, self._experiment = uri, experiment
        self._client: Any = None
        self._id = ""  # of the run, at MLflow

    def open(self, result: RunResult) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=self._uri or None)
        experiment = self._experiment_id()
        found = self._client.search_runs([experiment], f"tags.`{TAG}` = '{self.run}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id, self.n_told = self._new_run(experiment, result), 0
        self._client.log_dict(self._id, result.config, "config.json")
        self._client.log_dict(self._id, result.certificate, "certificate.json")

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return self._client.create_experiment(self._experiment)
            except MlflowException:  # another run of the sweep has created it meanwhile
                found = self._client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        return found.experiment_id

    def _new_run(self, experiment: str, result: RunResult) -> str:
        from mlflow.entities import Param

        run = self._client.create_run(experiment, run_name=title(result), tags={TAG: self.run}).info.run_id
        params = [Param(key, str(value)[:LENGTH]) for key, value in leaves(result.config).items()]
        for start in range(0, len(params), 100):  # the most that MLflow takes in one call
            self._client.log_batch(run, params=params[start:start + 100])
        return run

    def tell(self, told: Told) -> None:
        from mlflow.entities import Metric

        rounds = {point.value for point in self._client.get_metric_history(self._id, "round")}
        if told.round in rounds:
            return
        for name, content in told.images.items():
            file = f"{name}/round_{told.round:03d}.png"
            self._client.log_image(self._id, Image.open(io.BytesIO(content)), artifact_file=file)
        now = int(1000 * time.time())
        epochs = [Metric(name, value, now, epoch) for name, values in told.epochs.items() for epoch, value in enumerate(values)]
        for start in range(0, len(epochs), BATCH):
            self._client.log_batch(self._id, metrics=epochs[start:start + BATCH])
        self._client.log_batch(self._id, metrics=[  # last, since "round" marks the round as complete
            Metric(name, value, now, told.n_labeled) for name, value in told.numbers.items()])

    def close(self, status: str) -> None:
        self._client.set_terminated(self._id, "FINISHED" if status == "finished" else "FAILED")
