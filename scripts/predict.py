"""Predict the classes of images with the model of a run.

    python scripts/predict.py output/photos > predictions.csv
    python scripts/predict.py output/photos --output predictions.csv --sort-into sorted
    python scripts/predict.py output/photos more_photos one.jpg --label-studio tasks.json

RUN is a run's output folder, which stands for its last finished round's model, or one of its prompts files; the run may be
waiting for labels. Without IMAGES, folders or files, the images of its own train split are predicted, labeled or not. The CSV
table goes to --output, or to standard output if no other output is asked for: path, label, the model's confidence in it, the
second and third guess with theirs, margin (confidence minus that of the second), and in `given` whether people gave the label
(yes, no, or their answer without a class: skip, none, unsure). A label that people gave counts, whatever the model says. Images
that cannot be read are listed at the end and have a row without a label; the exit code is then 1. An output is written whole or
not at all.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dassl.utils import starting

    starting.begin()

from dassl.config.cli import Pairs, Parser, command
from dassl.data.dataset import SPLITS
from dassl.utils.errors import ConfigError, DataError, UserError, listed
from dassl.utils.events import stop_on_sigterm, stopped_by
from dassl.utils.files import check_new_folder
from dassl.utils.logging import warnings_on_stderr
from dassl.utils.paths import expanded, is_folder
from dassl.utils.progress import Progress
from trainers.core.job import Use, use_of

if TYPE_CHECKING:
    from scripts.predicting.outputs import Add
    from scripts.predicting.sources import Source


def parser() -> Parser:
    """Return the command line's parser."""
    flags = Parser(prog="predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("run", metavar="RUN", help="a run's output folder, or one of its prompts files")
    flags.add_argument("images", nargs="*", default=[], metavar="IMAGES",
                       help="folders of images, and image files; the run's pool if none")
    flags.add_argument("--split", choices=SPLITS, help="of the run's data set, instead of train")
    flags.add_argument("--output", metavar="FILE", type=expanded, help="where the CSV table goes")
    flags.add_argument("--sort-into", metavar="DIR", type=expanded, help="a new folder, for links to the images by class")
    flags.add_argument("--copy", action="store_true", help="copy the images into --sort-into instead")
    flags.add_argument("--label-studio", metavar="FILE", type=expanded, help="where tasks with predictions go, as JSON")
    add_model_flags(flags)
    return flags


def add_model_flags(flags: Parser) -> None:
    """Add the flags that say where a run's files are now."""
    flags.add_argument("--root", metavar="DIR", help="folder that holds the data sets, if it is not the recorded one")
    flags.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
                       help="wins over the run's config, such as MODEL.BACKBONE.PRETRAINED weights.safetensors, or "
                            "ACTIVE.PLUGINS \"['mine.py']\", which alone imports code of plug-ins")


def pairs_of(arguments: argparse.Namespace) -> Pairs:
    """Return the KEY VALUE pairs of the flags of `add_model_flags`."""
    return [*([("DATASET.ROOT", arguments.root)] if arguments.root else []), *map(tuple, arguments.set)]


def check(arguments: argparse.Namespace) -> None:
    """Raise ConfigError or UserError for flags that cannot work, before anything is loaded."""
    if arguments.copy and not arguments.sort_into:
        raise ConfigError("--copy goes with --sort-into")
    if arguments.split and arguments.images:
        raise ConfigError("--split names a split of the run's own data set; leave it out, or the images")
    if arguments.sort_into:
        check_new_folder(arguments.sort_into)
    for flag, file in (("--output", arguments.output), ("--label-studio", arguments.label_studio)):
        if file and is_folder(file):
            raise ConfigError(f"{flag} is the folder {file}, but must be a file")


def predict(use: Use, arguments: argparse.Namespace) -> list[str]:
    """Write all outputs and return what is wrong with images that have no prediction."""
    from scripts.predicting.sources import of_places, of_split
    from trainers.core.classifier import build_classifier

    classifier = build_classifier(use.cfg, use.model, use.record.dataset["classnames"])
    source = (of_places(use, classifier, arguments.images) if arguments.images
              else of_split(use, classifier, arguments.split or "train"))
    errors, n_given = [], 0
    with contextlib.ExitStack() as stack:
        adds = [stack.enter_context(output) for output in outputs(arguments, classifier.classnames, source, use.model.stem)]
        progress = stack.enter_context(Progress("predicting", source.n_images, "img"))
        for row in source.rows:
            for add in adds:
                add(row)
            errors += [str(row.found)] if isinstance(row.found, DataError) else []
            n_given += row.code >= 0
            progress.update()
    print(f"{source.n_images - len(errors)} of {source.n_images} images predicted; labels of {n_given} were given",
          file=sys.stderr)
    return errors


def outputs(
    arguments: argparse.Namespace, classnames: Sequence[str], source: "Source", version: str
) -> Iterator[AbstractContextManager["Add"]]:
    """Yield a function for each output: a file or folder for each flag, or else standard output."""
    from scripts.predicting import outputs

    if arguments.output:
        yield outputs.table(arguments.output, classnames)
    if arguments.sort_into:
        yield outputs.sorted_into(arguments.sort_into, classnames, source.folders, copy=arguments.copy)
    if arguments.label_studio:
        yield outputs.label_studio(arguments.label_studio, classnames, version, source.folders)
    if not (arguments.output or arguments.sort_into or arguments.label_studio):
        yield contextlib.nullcontext(outputs.table_writer(sys.stdout.write, classnames))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 1 if an image has no prediction, else as `train.py`'s."""
    try:
        arguments = parser().parse_intermixed_args(argv)  # images may follow flags
        check(arguments)
        with warnings_on_stderr():
            use = use_of(arguments.run, pairs_of(arguments))
            stop_on_sigterm()
            errors = predict(use, arguments)
    except UserError as error:
        print(f"predict.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        code, by = stopped_by(error)
        print(f"\npredict.py: stopped by {by}; no file or folder was written", file=sys.stderr)
        return code
    if errors:
        print(f"predict.py: {listed(f'{len(errors)} images cannot be read and have no prediction', errors)}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    command("predict.py", main)
