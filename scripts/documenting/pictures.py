"""Pictures of what each sampler picks, round by round: in the plane, and among the quickstart's digits."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from active.analysis.picks import draw_sheet
from active.analysis.style import BLACK, COLORS, panels, png_of, styled
from active.record.results import RunResult
from active.registry import SAMPLERS, choosing_samplers
from dassl.utils.environment import PROJECT
from dassl.utils.held import Held
from scripts.documenting.plane import TEXTS, points, run_on_plane
from trainers.core import job

CONFIGS = PROJECT / "configs"
ON_DIGITS = ("--config-file", str(CONFIGS / "quickstart.yaml"), str(CONFIGS / "trainers/LinearProbe/tiny_clip.yaml"),
             "MODEL.BACKBONE.PRETRAINED", str(CONFIGS / "models/tiny_clip.safetensors"), "ACTIVE.ROUNDS", "3",
             "ACTIVE.QUERY_SIZE", "10")
NEGATIVE = ("ACTIVE.SELECTOR_TRAINER", "DualPrompt", "TRAINER.DUALPROMPT.N_CTX_VISION", "0")  # else a fit takes half a minute
DPI = 110


def pictures() -> Iterator[tuple[str, bytes]]:
    """Yield a PNG of the plane and one of the digits for each sampler that chooses, as `coreset_plane`, `coreset_digits`."""
    held = Held()
    with tempfile.TemporaryDirectory() as folder, _quiet():
        for name in choosing_samplers():
            yield f"{name}_plane", png_of(draw_plane(run_on_plane(name, Path(folder) / name / "plane")), DPI)
            yield f"{name}_digits", png_of(on_digits(name, Path(folder) / "data", Path(folder) / name / "digits", held), DPI)


@styled
def draw_plane(result: RunResult) -> Figure:
    """Return a panel for each round: points in the colors of their classes, labels so far in black, this round's ringed.

    A text is a cross; a point that a sampler labeled itself has a square.
    """
    places, labels = points()
    figure, axes = panels(len(result.rounds), size=(2.4, 2.2), n_columns=4)
    known: list[int] = []
    for panel, record in zip(axes, result.rounds, strict=True):
        panel.scatter(*places.T, s=9, c=[COLORS[label] for label in labels], alpha=0.4, linewidths=0)
        panel.scatter(*TEXTS.T, s=45, c=COLORS[: len(TEXTS)], marker="x", linewidths=1.8)
        asked, own = ([int(name) for name in names] for names in (record.queried, record.pseudo_labeled))
        panel.scatter(*places[known].T, s=9, c=BLACK, linewidths=0)
        panel.scatter(*places[asked].T, s=34, c="none", edgecolors=BLACK, linewidths=1.4)
        panel.scatter(*places[own].T, s=26, c="none", edgecolors=BLACK, marker="s", linewidths=0.8)
        panel.set(title=f"round {record.round}: {record.sampler}", xticks=[], yticks=[], aspect="equal")
        panel.grid(False)
        known += asked + own
    return figure


def on_digits(sampler: str, root: Path, output: Path, held: Held) -> Figure:
    """Return the contact sheet of three rounds of ten labels on the digits, with a linear probe on the tiny CLIP."""
    words = [*ON_DIGITS, "--root", str(root), "--output-dir", str(output), "ACTIVE.SAMPLER", sampler,
             *(NEGATIVE if SAMPLERS[sampler].facts.get("needs_negative_texts") else ())]
    cfg = job.build_config(*job.parser().parse(words))
    job.check(cfg)
    job.settle(cfg)
    return draw_sheet(job.train(cfg, held).result, job.image_files(cfg, held).dataset)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the lines of the runs off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
