"""Download one of the field's data sets, verify it and lay it out as CoOp does.

    python -m datasets.prepare DTD --root DATA

Downloads go to `.prepare` in the data set's folder and are continued where they stopped; existing files are not fetched
again, but compared with their checksums, if known. A file is moved to its place in the data set's folder only when it is
complete and verified. When something fails, the steps to do by hand are printed, and the exit code is 1.

gdown does all downloads, not only those from Google Drive: torchvision and pooch restart a broken transfer from the beginning.
"""

import argparse
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import gdown
import requests

from dassl.config.cli import Parser, command
from dassl.data.archives import unpack
from dassl.data.dataset import DATASETS, SPLITS
from dassl.data.digests import ImageFiles
from dassl.utils.errors import ConfigError, DataError, UserError, did_you_mean, listed
from dassl.utils.files import digest_of, lock
from dassl.utils.paths import expanded
from dassl.utils.text import printable
from datasets.sources import SOURCES, Download, Source

logger = logging.getLogger(__name__)

N_RETRIES = 3  # of a transfer that breaks off; each continues where it stopped
TIMEOUT = 60  # seconds without a byte


def prepare(name: str, source: Source, root: Path) -> None:
    """Put the data set `name` below `root`; raises UserError if something cannot be fetched or is not what it should be."""
    folder = root / source.folder
    staging = folder / ".prepare"  # inside the folder, which may be a link to another disk
    with lock(staging / ".lock", wait=False):
        for download in source.downloads:
            if all((folder / target).exists() for target in download.targets):
                _check_present(download, folder)
            else:
                _bring(download, staging, folder)
        absent = [path for path in source.by_hand if not (folder / path).exists()]
        if absent:
            raise DataError(f"no address serves {' and '.join(absent)} of {name}")
        _verify(name, source, root)
    shutil.rmtree(staging)


def _bring(download: Download, staging: Path, folder: Path) -> None:
    """Fetch one file and move it, or its contents, to the data set's folder."""
    file = fetch(download.url, staging / download.file, download.digest)
    if not download.products:
        os.replace(file, folder / download.file)
        return
    unpacked = staging / f"{download.file}.unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpack(file, unpacked)
    if download.inner:
        unpack(_member(unpacked, download.inner, download), unpacked)
    for member, target in download.products.items():
        if not (folder / target).exists():
            os.replace(_member(unpacked, member, download), folder / target)
    shutil.rmtree(unpacked)
    file.unlink()


def fetch(url: str, file: Path, digest: str) -> Path:
    """Return `file` after downloading it, continuing an earlier attempt, and verifying it.

    A wrong file is removed. Raises DataError.
    """
    if not file.exists():
        parts = sorted(file.parent.glob(f"{file.name}*.part"))
        try:
            _download(url, file)
        except DataError:
            if not parts:
                raise
            logger.info("%s cannot be continued; starting it again", file.name)
            for part in parts:  # the server does not support ranges, or has another file now
                part.unlink(missing_ok=True)
            _download(url, file)
    if fault := _fault(file, digest):
        file.unlink()
        raise DataError(f"{url} serves {fault}")
    return file


def _check_present(download: Download, folder: Path) -> None:
    """Raise DataError for a file in its place that is not the published one; log what could be compared."""
    if download.products:  # the checksum is that of the archive, which is gone
        logger.info("%s: there; no checksum is known of what is in it (datasets.check reads every file)",
                    ", ".join(download.targets))
        return
    file = folder / download.file
    if fault := _fault(file, download.digest):
        raise DataError(f"{file} is {fault}; remove it and run this command again, which fetches the published one")
    logger.info("%s: there, %s", download.file, "its checksum is right" if download.digest else "no checksum of it is known")


def _download(url: str, file: Path) -> None:
    try:
        gdown.download(url, str(file), resume=True, use_cookies=False, quiet=not sys.stderr.isatty(), retries=N_RETRIES,
                       timeout=TIMEOUT)
    except (gdown.exceptions.DownloadError, requests.RequestException, OSError) as error:
        raise DataError(f"cannot download {url}: {' '.join(str(error).split())}") from error


def _fault(file: Path, digest: str) -> str:
    """Return what a file is instead of the one with this digest, or ""; a split file may differ in white space."""
    try:
        with open(file, "rb") as opened:
            start = opened.read(512).lstrip().lower()
        kind, _, expected = digest.partition(":")
        found = digest_of(file, kind) if digest else ""
    except OSError as error:
        return f"not to be read: {error.strerror}"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page instead of the file; it may be gone, or have been downloaded too often today"
    if not start:
        return "an empty file"
    if found != expected and not (file.suffix == ".json" and _digest_as_published(file, kind) == expected):
        return f"another file: its {kind} is {found}, not {expected}"
    return ""


def _digest_as_published(file: Path, kind: str) -> str:
    """Return the digest of a JSON file's content, formatted with the white space of CoOp's split files."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError:
        return ""
    return hashlib.new(kind, json.dumps(content, indent=4, separators=(",", ": ")).encode()).hexdigest()


def _member(unpacked: Path, member: str, download: Download) -> Path:
    if not (unpacked / member).exists():
        raise DataError(f"{download.url} does not hold {member}")
    return unpacked / member


def _verify(name: str, source: Source, root: Path) -> None:
    """Raise DataError unless the data set has its published sizes and every image file is there and not empty."""
    dataset = DATASETS[name].build(root)
    sizes = tuple(len(dataset.split(split)) for split in SPLITS)
    if sizes != source.sizes:
        raise DataError(f"{name} has {sizes} train, val and test images, not {source.sizes}")
    ImageFiles(dataset)
    empty = [printable(path) for split in SPLITS for path in dataset.files(split) if not path.stat().st_size]
    if empty:
        raise DataError(listed(f"{name}: {len(empty)} image files are empty; bring them again", empty))


def manual_steps(name: str, source: Source, root: Path) -> str:
    """Return what a person can do instead, one step per line."""
    folder = root / source.folder
    steps = [f"make the folder {folder}"]
    for download in source.downloads:
        digest = f" ({download.digest.replace(':', ' ')})" if download.digest else ""
        place = (f"; unpack it and bring {', '.join(download.products)} to {folder} as {', '.join(download.targets)}"
                 if download.products else f" and save it as {folder / download.file}")
        steps.append(f"download {download.url}{digest}{place}")
    steps += source.by_hand.values()
    lines = [f"  {number}. {step}" for number, step in enumerate(steps, 1)]
    return "\n".join([f"By hand, for {name}:", *lines, "Then run this command again to verify. DATASETS.md says more."])


def parser() -> Parser:
    """Return the command line's parser."""
    flags = Parser(prog="datasets.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("name", metavar="NAME", help=", ".join(SOURCES))
    flags.add_argument("--root", default="./data", metavar="DIR", help="folder that holds the data sets, default ./data")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    steps = ""
    try:
        arguments = parser().parse_args(argv)
        if arguments.name not in SOURCES:
            raise ConfigError(f"no source is known for {arguments.name!r}; {did_you_mean(arguments.name, SOURCES)}")
        source, root = SOURCES[arguments.name], expanded(arguments.root)
        steps = manual_steps(arguments.name, source, root)
        prepare(arguments.name, source, root)
    except (UserError, OSError) as error:
        sys.stderr.write(f"datasets.prepare: {error}\n" + (f"\n{steps}\n" if steps else ""))
        return getattr(error, "exit_code", 1)
    logger.info("%s is ready in %s", arguments.name, root / source.folder)
    return 0


if __name__ == "__main__":
    command("datasets.prepare", main)
