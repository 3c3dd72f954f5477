"""Weights & Biases, in the cloud, on one's own server, or offline, to be sent later by `wandb sync`."""

import io
import logging
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image

from active.record.recorders import RECORDERS
from active.record.results import RunResult
from active.record.trackers.told import Told, Tracker, title
from dassl.config.defaults import Circumstance, Place
from dassl.data.dataset import Dataset
from dassl.utils.extras import required
from dassl.utils.registry import Given
from dassl.utils.run_folder import RECORDERS as FOLDER

STEPS = 10**6  # per round: more than its epochs, so that W&B's steps ascend and a round told again adds nothing
SECONDS = 30  # that a start may take to answer

logger = logging.getLogger(__name__)


def check_wandb() -> None:
    """Raise ConfigError unless the package is installed."""
    required("wandb", "runs that are shown at Weights & Biases (LOG.TRACKERS)", "requirements-trackers.txt")


@RECORDERS.register("wandb", check=check_wandb)
class WandB(Tracker):
    """Numbers are plotted over the labels so far, losses and rates over the epochs of their round.

    "" for `mode` and `entity` leaves them to W&B's own settings, such as WANDB_MODE.
    """

    service = "wandb"

    def __init__(self, output: Path, *, project: Place = "active-prompt-learning", entity: Place = "",
                 mode: Annotated[Literal["", "online", "offline"], Circumstance()] = "",
                 dataset: Annotated[Dataset | None, Given()] = None):
        super().__init__(output, dataset)
        self._place: dict[str, Any] = {"project": project, "entity": entity or None, "mode": mode or None}
        self._session: Any = None

    def open(self, result: RunResult) -> None:
        if self._session is None:
            self._session = self._started(result)
        self._session.config.update(result.config | {"certificate": result.certificate}, allow_val_change=True)
        self._session.define_metric("*", step_metric="n_labeled")
        for series in ("loss/*", "learning_rate/*"):
            self._session.define_metric(series, step_metric="epoch")
        sync = f"wandb sync {shlex.quote(str(Path(self._session.dir).parent))}"
        logger.info("this run at Weights & Biases: %s", sync if self._session.offline else self._session.url)

    def _started(self, result: RunResult) -> Any:
        import wandb

        try:
            return wandb.init(
                **self._place, id=self.run, name=title(result), dir=str(self.output / FOLDER), resume="allow",
                reinit="create_new", settings=wandb.Settings(console="off", silent=True, init_timeout=SECONDS))
        except Exception:
            wandb.teardown()  # else the name is in use when this is tried again
            raise

    def tell(self, told: Told) -> None:
        import wandb

        n_epochs = max(map(len, told.epochs.values()), default=0)
        for epoch in range(n_epochs):
            now = {name: values[epoch] for name, values in told.epochs.items() if epoch < len(values)}
            self._session.log(now | {"epoch": epoch}, step=told.round * STEPS + epoch)
        images = {name: wandb.Image(Image.open(io.BytesIO(content))) for name, content in told.images.items()}
        self._session.log({**told.numbers, **images}, step=told.round * STEPS + n_epochs)

    def close(self, status: str) -> None:
        self._session.finish(exit_code=0 if status == "finished" else 1)
