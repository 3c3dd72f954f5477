"""All figures of an experiment, one after the other, each with its name, its title and how to read it."""

import argparse
import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from active.analysis import picks
from active.analysis.comparisons import average_ranks, draw_ranks, draw_wins
from active.analysis.figures import draw_balance, draw_curves, methods_of
from active.analysis.records import Records, check_metric, load_records
from active.analysis.style import BASELINE, file_name
from active.analysis.tests_of_difference import FULL, TABLE
from dassl.evaluation.metrics import title_of
from dassl.utils.errors import ConfigError, DataError, UserError, did_you_mean
from dassl.utils.paths import is_folder

EVERY = "all"  # of --picks

CAPTIONS = {
    "curves": "Mean over the seeds of finished runs, over the labels paid for; the band is one standard deviation (ddof 1) to "
              "both sides. The lines without points are the frozen model without any training (zero-shot) and training on all "
              "labels, where that was run.",
    "ranks": "Average rank at the last round, over all pairs of data set and seed for which every method has finished; "
             "a method without a finished run is not shown. Methods whose bars do not overlap differ by Nemenyi's test at the "
             "5 % level; white points differ in this way from the best. The test takes the pairs as independent, though those "
             "of one data set share its images.",
    "wins": "In what percentage of all (data set, seed, round) the row's method is better than the column's; a tie "
            "counts as half a win. Each pair is compared where both have finished.",
    "balance": "Means over the seeds of finished runs. Evenness is the entropy of the classes of all labeled images divided by "
               "its largest value, the logarithm of the number of classes: 1 if all classes have equally many. With fewer "
               "labels than classes it stays below 1.",
    "projection": "The pool's frozen features in the plane ({kind}), with the images that each method asked for in each "
                  "round, seed {seed}. Names of classes stand at the median of their images.",
    "sheet": "The images that {method} asked for in each round, in the order of its picks, seed {seed}; below each its class.",
}
KINDS = {"pca": "the first two principal components", "tsne": "t-SNE"}


@dataclass(frozen=True)
class Picture:
    """A figure, a name for its file, and the title above and caption below it."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class LeftOut:
    """A figure that cannot be drawn, with the reason, in one line."""

    line: str


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add the flags that all drawing commands share."""
    flags.add_argument("output", nargs="+", metavar="OUTPUT", help="folders of runs, or results.json files")
    flags.add_argument("--methods", nargs="+", metavar="METHOD", help="only these; all by default")
    flags.add_argument("--metric", metavar="NAME", default="accuracy", help="one of the metrics that the runs have measured")
    flags.add_argument("--root", metavar="DIR", help="folder that holds the images, if it is not the recorded one")
    flags.add_argument("--picks", nargs="+", metavar="METHOD",
                       help=f"whose images are shown: {EVERY}, or by default {BASELINE} and the best other")
    flags.add_argument("--projection", choices=picks.PROJECTIONS, default="pca",
                       help="of the features; tsne takes a minute or more")


def chosen(arguments: argparse.Namespace) -> Records:
    """Return the records that the flags of `add_flags` name; ConfigError for a method or metric that they lack."""
    records = load_records(arguments.output)
    check_metric(records, arguments.metric)
    if arguments.methods:
        _check(arguments.methods, "--methods", set(records.runs.method))
        kept = [*arguments.methods, FULL]
        frames = (frame[frame.method.isin(kept)] for frame in (records.runs, records.rounds))
        records = Records(*frames, records.notes)
    _check(arguments.picks or (), "--picks", {*records.runs.method, EVERY})
    return records


def folder_of(output: str) -> Path:
    """Return the folder of an OUTPUT, which may be a results.json file."""
    return Path(output) if is_folder(output) else Path(output).parent


def _check(methods: Iterable[str], flag: str, known: set[str]) -> None:
    for method in methods:
        if method not in known:
            raise ConfigError(f"{flag}: there is no run of {method!r}; {did_you_mean(method, known)}")


def pictures(records: Records, part: Records, arguments: argparse.Namespace) -> Iterator[Picture | LeftOut]:
    """Yield the figures of the table `part` of `records`, as the flags of `add_flags` ask for them."""
    keys = tuple(part.runs[TABLE].iloc[0])
    metric = arguments.metric
    for kind, title, draw in (
        ("curves", f"Test {title_of(metric)} over paid labels", lambda: draw_curves(records, part, metric)),
        ("ranks", f"Average ranks by {title_of(metric)}", lambda: draw_ranks(part, metric)),
        ("wins", f"Wins of each pair by {title_of(metric)}", lambda: draw_wins(part, metric)),
        ("balance", "Balance of the labeled classes", lambda: draw_balance(part)),
    ):
        name = kind if kind == "balance" or metric == "accuracy" else f"{kind}-{metric}"
        yield _drawn(file_name((name, *keys)), title, CAPTIONS[kind], draw)
    for dataset in sorted(part.runs.dataset.unique()):
        yield from _pictures_of_picks(part, dataset, keys, arguments)


def _pictures_of_picks(part: Records, dataset: str, keys: tuple[str, ...],
                       arguments: argparse.Namespace) -> Iterator[Picture | LeftOut]:
    """Yield the projection with the picks of all methods, and a contact sheet for each method whose images are shown."""
    try:
        results = picks.shown_runs(part, dataset)
        first = next(iter(results.values()))
        images = picks.recorded_dataset(first.config, arguments.root)
    except UserError as error:
        yield _left_out(f"Picks on {dataset}", error)
        return
    seed = first.config["SEED"]
    yield _drawn(file_name(("projection", *keys, dataset)), f"Picks on {dataset} among the pool's features",
                 CAPTIONS["projection"].format(kind=KINDS[arguments.projection], seed=seed),
                 lambda: picks.draw_projection(results, images, picks.pool_features(first, images), arguments.projection))
    for method in [method for method in sheet_methods(part, arguments.picks, arguments.metric) if method in results]:
        yield _drawn(file_name(("sheet", *keys, dataset, method)), f"Picks of {method} on {dataset}",
                     CAPTIONS["sheet"].format(method=method, seed=seed),
                     lambda result=results[method]: picks.draw_sheet(result, images))


def sheet_methods(part: Records, wanted: Sequence[str] | None, metric: str = "accuracy") -> list[str]:
    """Return the methods whose images are shown: those wanted, or the baseline and the best-ranked other."""
    methods = methods_of(part)
    if wanted == [EVERY]:
        return methods
    if wanted:
        return [method for method in methods if method in wanted]
    others = [method for method in methods if method != BASELINE]
    with contextlib.suppress(DataError):  # nothing to rank by: keep the first
        ranks = average_ranks(part, metric).ranks
        others.sort(key=lambda method: ranks.get(method, math.inf))
    return [method for method in methods if method in (*others[:1], BASELINE)]


def _drawn(name: str, title: str, caption: str, draw: Callable[[], Figure]) -> Picture | LeftOut:
    try:
        return Picture(name, title, caption, draw())
    except UserError as error:
        return _left_out(title, error)


def _left_out(title: str, error: UserError) -> LeftOut:
    return LeftOut(f"{title}: left out, {str(error).splitlines()[0].rstrip(':')}")
