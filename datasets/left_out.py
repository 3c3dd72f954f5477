"""What ImageFolder leaves out of a folder, logged in one line per kind."""

import logging
import os
from collections import Counter
from collections.abc import Collection

from dassl.data.folders import DANGLING, FILE, IMAGE, LOOP, RUN, SYSTEM, Tree
from dassl.data.formats import plug_in_for
from dassl.utils.text import printable

NOTES = {".txt", ".yaml", ".yml", ".csv", ".json"}  # suffixes of files that usually lie beside images
WORDS = {RUN: "folders or files are of this project's runs and hold no images of a class",
         SYSTEM: "folders or files are the operating system's",
         LOOP: "links lead back to a folder that they lie in, or to themselves", DANGLING: "links lead nowhere"}
N_SHOWN = 3

logger = logging.getLogger(__name__)


def say_left_out(tree: Tree, used: Collection[str]) -> None:
    """Log how many entries of a tree are not among the images `used`, except notes and hidden files."""
    root = os.path.abspath(tree.root)
    for kind, words in WORDS.items():
        if found := tree.paths(kind):
            logger.warning("%s: %d %s; they are left out: %s%s", root, len(found), words, ", ".join(
                map(printable, found[:N_SHOWN])), ", ..." if len(found) > N_SHOWN else "")
    if n_deep := sum(path not in used for path in tree.paths(IMAGE)):
        logger.warning("%s: %d images are left out, as they do not lie right in the folder of a class", root, n_deep)
    files = tree.paths(FILE)
    _say_what_to_install(root, files)
    suffixes = Counter(suffix for path in files if plug_in_for(suffix := os.path.splitext(path)[1].lower()) is None)
    if others := {suffix: count for suffix, count in sorted(suffixes.items()) if suffix not in NOTES}:
        logger.warning("%s: %d files are left out, as their suffix is that of no image that is read: %s", root,
                       sum(others.values()), ", ".join(f"{count} {suffix or 'none'}" for suffix, count in others.items()))


def _say_what_to_install(root: str, files: Collection[str]) -> None:
    """Log the images that need a package that is not installed, with the command that installs it."""
    for command in sorted({plug_in.command for path in files if (plug_in := plug_in_for(os.path.splitext(path)[1]))}):
        own = [path for path in files if (plug_in := plug_in_for(os.path.splitext(path)[1])) and plug_in.command == command]
        logger.warning("%s: %d images are left out, as what reads them is not installed; %s: %s%s", root, len(own), command,
                       ", ".join(map(printable, own[:N_SHOWN])), ", ..." if len(own) > N_SHOWN else "")
