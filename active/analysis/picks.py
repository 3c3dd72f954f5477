"""What samplers picked: the images, round by round, and where they lie among the frozen features of the pool.

Images come from the data set that a record's config names, features from the cache that its run has left. If they are
missing, or do not match the record, DataError says what is missing.
"""

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from yacs.config import CfgNode

from active.analysis.records import Records
from active.analysis.style import BLACK, MARKERS, legend_below, panels, plain, styled
from active.analysis.tables import in_order
from active.analysis.tests_of_difference import FULL
from active.oracles.unasked import asked_once
from active.record.folder import linear_used
from active.record.results import RunResult
from dassl.config.setup import cache_path, load_plugin
from dassl.data.answers import code_of, written
from dassl.data.dataset import DATASETS, UNLABELED, Dataset
from dassl.data.images import read_image
from dassl.data.places import Place
from dassl.utils.errors import DataError
from dassl.utils.paths import expanded, is_folder
from dassl.utils.run_folder import RESULTS

PROJECTIONS = ("pca", "tsne")
N_COLUMNS = 12  # images of a round on a contact sheet
SIDE = 112  # pixels of the longer side of an image on it
N_LETTERS = 13  # letters of a class name below an image
N_POOL = 10_000  # images that a projection shows beside the picks; drawn at random from a larger pool
N_NAMED = 20  # with more classes, a projection names none


def shown_runs(part: Records, dataset: str) -> dict[str, RunResult]:
    """Return the record of each method on a data set, all with one seed: the one that most methods have finished."""
    runs = part.runs[(part.runs.dataset == dataset) & (part.runs.status == "done") & (part.runs.method != FULL)]
    if runs.empty:
        raise DataError(f"no run on {dataset} is finished")
    seed = runs.groupby("seed").size().idxmax()  # the lowest of the seeds with most runs
    folders = runs[runs.seed == seed].set_index("method").folder
    return {method: RunResult.read(Path(folders[method]) / RESULTS) for method in in_order(folders.index)}


def recorded_dataset(config: Mapping[str, Any], root: str | None = None) -> Dataset:
    """Return the data set of a recorded config, below `root` if that is given; DataError unless all of it is there."""
    from dassl.data.build import build_dataset  # imported here because records are read without torch
    from dassl.data.digests import ImageFiles

    node = config["DATASET"] | ({"ROOT": root} if root else {})
    if not is_folder(expanded(node["ROOT"])):  # else some data sets would be written there
        raise DataError(f"{node['ROOT']} is not a folder; --root names the one that holds the images")
    if node["NAME"] not in DATASETS:
        for plugin in config["ACTIVE"].get("PLUGINS", []):
            load_plugin(plugin)
    DATASETS[node["NAME"]]
    cfg = CfgNode(dict(config) | {"DATASET": node})
    cache = cache_path(cfg)
    dataset = build_dataset(cfg.DATASET, seed=cfg.SEED, cache=cache)
    return asked_once(ImageFiles(dataset, cache if os.access(cache, os.W_OK) else None), cfg).dataset


def pool_features(result: RunResult, dataset: Dataset) -> np.ndarray:
    """Return the features [N, D] of the train split that a run selected from, read from the cache it left."""
    from dassl.data.digests import ImageFiles  # imported here because records are read without torch
    from dassl.data.feature_bank import bank_path
    from dassl.data.feature_blocks import types_of
    from dassl.utils.tensors import key_of, load_tensors

    folder = expanded(result.config["CACHE_DIR"] or dataset.root / ".cache")
    keys = {path: key_of(path) for path in sorted(folder.glob(f"{glob.escape(dataset.name)}_train_*.safetensors"))}
    if damaged := [path for path, key in keys.items() if not key]:
        raise DataError(f"the feature cache {damaged[0]} is damaged")
    fitting = {path: key for path, key in keys.items() if path == bank_path(folder, key) and _fits(key, result)}
    if fitting:
        contents = ImageFiles(dataset, folder if os.access(folder, os.W_OK) else None).contents("train")
        files = {contents.sha256, contents.former_digest()}
        fitting = {path: key for path, key in fitting.items() if key["files"] in files}
        fitting = {path: key for path, key in fitting.items() if "files_by" in key} or fitting  # not an earlier version's
    if len(fitting) != 1:
        raise DataError(f"{folder} holds {len(fitting) or 'no'} features of these images by the record's backbone")
    (path, key), = fitting.items()
    types = types_of(key)
    kept = load_tensors(path, key, types if "files_by" in key else {"features": types["features"]})
    if kept is None:
        raise DataError(f"the feature cache {path} is damaged")
    return kept["features"].float().numpy()


def _fits(key: Mapping[str, Any], result: RunResult) -> bool:
    """Tell whether features with this key are those that a run used."""
    given = result.config["INPUT"]
    decoding, own = key["decoding"], {"PIXEL_MEAN": key["mean"], "PIXEL_STD": key["std"]}
    device = "cuda" if result.config["USE_CUDA"] and "gpu" in result.environment else "cpu"
    return (key["weights"] == result.certificate.get("weights") and key["precision"] == result.config["MODEL"]["PREC"]
            and key.get("device") == device and key.get("linear", "torch") == linear_used(result.environment)
            and key.get("features", "float32") == result.config["MODEL"].get("FEATURES", "float32")
            and "reads" not in key  # "reads": other rows of the tower than unit-norm features
            and given["INTERPOLATION"] in ("", key["interpolation"]) and decoding["exif_rotation"] == given["EXIF_ROTATION"]
            and bool(decoding["draft"]) == given["JPEG_DRAFT"]
            and given.get("RESIZE", "") in ("", key.get("resize", "shortest"))
            and all(given[name] in ([], value) for name, value in own.items()))


def picked_rows(result: RunResult, dataset: Dataset) -> list[list[int]]:
    """Return the rows of the train split that were asked in each round, in the order of the picks."""
    picks = [record.queried for record in result.rounds]
    strangers = [path for paths in picks for path in paths if path not in dataset.train_rows]
    if strangers:
        raise DataError(f"{len(strangers)} picks are not among the images of {dataset.name} below {dataset.root}, first "
                        f"{strangers[0]!r}")
    return [[dataset.train_rows[path] for path in paths] for paths in picks]


def projection(features: np.ndarray, picked: Sequence[int], kind: str = "pca") -> tuple[np.ndarray, np.ndarray]:
    """Return rows [n] of the pool, including all picked ones, and their places in the plane, [n, 2].

    From a pool of more than N_POOL rows that many are drawn, always the same. Raises DataError for fewer than three rows.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = np.arange(len(features))
    if len(rows) > N_POOL:
        rows = np.union1d(np.random.default_rng(0).choice(rows, N_POOL, replace=False), np.asarray(picked, dtype=int))
    if len(rows) < 3:
        raise DataError("a projection needs three images")
    if kind == "pca":
        return rows, PCA(2, random_state=0).fit_transform(features[rows])
    perplexity = min(30.0, (len(rows) - 1) / 3)
    return rows, TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features[rows])


@styled
def draw_sheet(result: RunResult, dataset: Dataset) -> Figure:
    """Return the first N_COLUMNS images that each round asked for, in the order of the picks, with their class names."""
    rounds = picked_rows(result, dataset)
    files = dataset.files("train")
    n_columns = min(N_COLUMNS, max(map(len, rounds)))
    figure = Figure(figsize=(1.0 + 0.62 * n_columns, 0.2 + 0.82 * len(rounds)), layout="constrained")
    axes = figure.add_subplot()
    for height, (record, rows) in enumerate(zip(result.rounds, rounds, strict=True)):
        more = f"\nfirst {n_columns} of {len(rows)}" if len(rows) > n_columns else f"\n{len(rows)} images"
        axes.text(-0.1, height + 0.45, f"round {record.round}{more}", ha="right", va="center", fontsize=7)
        for column, row in enumerate(rows[:n_columns]):
            answer = code_of(record.answers.get(dataset.train[row].path, dataset.train[row].label))
            name = "?" if answer == UNLABELED else written(answer, dataset.classnames)
            _place(axes, files[row], column, height)
            axes.text(column + 0.5, height + 0.98, plain(_short(name)), ha="center", va="center", fontsize=6)
    axes.set(xlim=(-1.4, n_columns), ylim=(len(rounds) + 0.1, 0), aspect=0.82 / 0.62)
    axes.set_axis_off()
    return figure


def _place(axes: Axes, file: Place, column: int, row: int) -> None:
    """Draw an image into a cell of 1 x 1 that is 0.62 x 0.82 inches, leaving room below it."""
    image = read_image(file)
    image.thumbnail((SIDE, SIDE))
    longest = max(image.size)
    width, height = 0.92 * image.width / longest, 0.92 * image.height / longest * 0.62 / 0.82
    left, top = column + (1 - width) / 2, row + 0.1 + (0.75 - height) / 2
    axes.imshow(image, extent=(left, left + width, top + height, top), aspect="auto")


def _short(name: str) -> str:
    return name if len(name) <= N_LETTERS else f"{name[: N_LETTERS - 1]}…"


@styled
def draw_projection(results: Mapping[str, RunResult], dataset: Dataset, features: np.ndarray, kind: str = "pca") -> Figure:
    """Return the pool in the plane, one panel for each method, with its picks coloured by round, dark to light."""
    picks = {method: picked_rows(result, dataset) for method, result in results.items()}
    everything = sorted({row for rounds in picks.values() for rows in rounds for row in rows})
    rows, places = projection(features, everything, kind)
    n_rounds = max(map(len, picks.values()))
    colors = matplotlib.colormaps["cividis"](np.linspace(0, 1, n_rounds))
    points = [{"color": colors[round], "marker": MARKERS[round % 7], "markeredgecolor": BLACK, "markeredgewidth": 0.5,
               "markersize": 5, "linestyle": ""} for round in range(n_rounds)]
    figure, axes = panels(len(picks), size=(2.6, 2.4))
    for panel, (method, rounds) in zip(axes, picks.items(), strict=True):
        panel.scatter(*places.T, s=4, color="0.8", linewidths=0, rasterized=True)
        for round, asked in enumerate(rounds):
            panel.plot(*places[np.searchsorted(rows, asked)].T, **points[round])
        _name_classes(panel, dataset, rows, places)
        panel.set(title=plain(method), xticks=[], yticks=[])
        panel.spines[:].set(visible=True, color="0.7")
    legend_below(figure, [Line2D([], [], **style) for style in points], [f"round {round}" for round in range(n_rounds)])
    return figure


def _name_classes(axes: Axes, dataset: Dataset, rows: np.ndarray, places: np.ndarray) -> None:
    """Write the class names at the median places of their images, unless there are too many."""
    labels = dataset.labels("train").numpy()[rows]
    if len(dataset.classnames) > N_NAMED:
        return
    for label in np.unique(labels[labels != UNLABELED]):
        x, y = np.median(places[labels == label], axis=0)
        axes.text(x, y, plain(_short(dataset.classnames[label])), ha="center", va="center", fontsize=7, zorder=1.5,
                  path_effects=[withStroke(linewidth=2, foreground="white")])
