"""Torchvision: one of torchvision's data sets, by the name of its class.

    python train.py --config-file ... --root DATA DATASET.NAME Torchvision DATASET.TORCHVISION.NAME CIFAR10

The data root is what torchvision calls `root`. Images that are files stay where they are. Those that torchvision keeps in
arrays (CIFAR, MNIST, ...) are written once, pixel by pixel, into a tar file beside them, `torchvision-CIFAR10/train.tar`, so
that they have bytes and names like all images here. Before torchvision unpickles a file (CIFAR), it compares it with the
published checksum.
"""

import inspect
import io
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from dassl.data.collected import Item, Setting, collected
from dassl.data.dataset import DATASETS, Dataset
from dassl.data.draws import draw_of, shares
from dassl.data.shards import CLASS, IMAGE, Shard
from dassl.utils.errors import ConfigError, DataError, did_you_mean, first_line
from dassl.utils.files import atomic_path, lock
from dassl.utils.paths import exists, is_folder
from dassl.utils.progress import progress
from dassl.utils.registry import AtLeast, AtMost, Given

from .torchvision_sets import OTHERS, SETS, Collection

KNOWN = ("classes", "categories", "all_categories")  # attributes in which its data sets hold their class names
NO_OPTIONS = {"self", "root", "transform", "target_transform", "transforms", "download", "loader", "train", "kwargs"}


@DATASETS.register("Torchvision")
def torchvision(
    root: Path, *, name: str = "", download: bool = False, options: tuple[str, ...] = (),
    val: Annotated[float, AtLeast(-1.0), AtMost(1.0)] = -1.0, test: Annotated[float, AtLeast(0.0), AtMost(1.0)] = 0.3,
    split_seed: Annotated[int, AtLeast(0), AtMost(2**32 - 1)] = 0, template: str = "",
    cache: Annotated[Path | None, Given()] = None,
) -> Dataset:
    """Return the data set that the class `torchvision.datasets.<name>` finds in `root`.

    `download` lets it fetch what is missing. `options` are further keywords of that class, such as `split=letters` for EMNIST.
    The splits are torchvision's; if it has none, one is drawn as for ImageFolder. An empty `template` stands for the data
    set's.
    """
    collection, parts = _collection(name), shares("DATASET.TORCHVISION", val, test)
    if not is_folder(root) and not download:
        raise DataError(f"{root} is not a folder; --root must name the folder that torchvision calls root")
    keywords = dict(collection.keywords) | _options(name, options)
    own_name = "-".join(["torchvision", name, *(re.sub(r"[^\w.]+", "_", option) for option in options)])
    found = {split: _made(name, root, own | keywords, download) for split, own in collection.splits.items()}
    place = root if cache is None or os.access(root, os.W_OK) else cache
    items = [item for split, own in found.items() for item in _items(own, split, (root, place / own_name), collection)]
    names = _classnames(next(iter(found.values())), collection, items)
    setting = Setting(own_name, root, draw_of(root, parts, split_seed, cache, f"{own_name}_split"),
                      template or collection.template)
    return collected(setting, sorted(items, key=lambda item: (item.split, item.path)), names)


def _collection(name: str) -> Collection:
    """Return what is known of a class; raises ConfigError if it yields no image and label, or is not torchvision's."""
    if name in OTHERS:
        raise ConfigError(f"DATASET.TORCHVISION.NAME is {name!r}, but torchvision's {name} holds no image with its class: "
                          f"{OTHERS[name]}")
    if name not in SETS:
        raise ConfigError(f"DATASET.TORCHVISION.NAME is {name!r}, which is not a torchvision data set with images and classes; "
                          f"{did_you_mean(name, SETS)}")
    return SETS[name]


def _class(name: str) -> type:
    import torchvision.datasets  # seconds to import

    if not hasattr(torchvision.datasets, name):
        raise ConfigError(f"torchvision {torchvision.__version__} has no {name}; update it")
    return getattr(torchvision.datasets, name)


def _options(name: str, options: Sequence[str]) -> dict[str, str | int]:
    """Return keyword arguments of a class, given as "key=value"; raises ConfigError for unknown ones."""
    pairs = dict(option.partition("=")[::2] for option in options)
    known = set(inspect.signature(_class(name)).parameters) - NO_OPTIONS
    if unknown := [key for key in pairs if key not in known]:
        raise ConfigError(f"DATASET.TORCHVISION.OPTIONS: {name} has no {unknown[0]!r}; {did_you_mean(unknown[0], known)}")
    return {key: int(value) if value.isdecimal() else value for key, value in pairs.items()}


def _made(name: str, root: Path, keywords: dict[str, Any], download: bool) -> Any:
    """Return a data set of torchvision; raises DataError, with what to do, if it does not find its files."""
    build = _class(name)
    takes = inspect.signature(build).parameters
    if "download" in takes or ("kwargs" in takes and name != "ImageNet"):
        keywords = keywords | {"download": download}
    try:
        return build(str(root), **keywords)
    except MemoryError:
        raise
    except Exception as error:  # files that are missing, damaged or of another version may raise anything
        raise DataError(f"torchvision's {name} cannot be loaded from {root}: {first_line(error)}; put its files there in the "
                        "published layout, or DATASET.TORCHVISION.DOWNLOAD True fetches what torchvision can fetch") from error


def _items(found: Any, split: str, places: tuple[Path, Path], collection: Collection) -> Iterator[Item]:
    """Yield the images of a split with the numbers of their classes. `places` are the root, and the folder of shards."""
    root, folder = places
    if collection.pairs:
        pairs = collection.pairs(found)
    elif loader := next((own for own in ("loader", "_loader") if hasattr(found, own)), ""):
        setattr(found, loader, str)  # so that it returns an image's path
        pairs = (found[row] for row in range(len(found)))
    else:
        shard = Shard(_shard(found, folder / f"{split or 'all'}.tar"))
        values = shard.values(CLASS) if CLASS in shard.columns else [None] * len(shard.places(IMAGE))
        yield from (Item(split, place, value) for place, value in zip(shard.places(IMAGE), values, strict=True))
        return
    for path, label in pairs:
        yield Item(split, os.path.relpath(path, root), None if label is None else int(label))


def _shard(found: Any, file: Path) -> Path:
    """Return the tar file of images from arrays, with their classes; it is written if it is missing."""
    with lock(file.with_name(f".{file.name}.lock"), wait=True):
        if not exists(file):
            with atomic_path(file) as temporary, tarfile.open(temporary, "w") as tar:
                for row in progress(range(len(found)), f"writing {file}", total=len(found), unit="img"):
                    image, label = found[row]
                    stream = io.BytesIO()
                    image.save(stream, "PPM")  # its bytes are the pixels, whichever library writes them
                    _add(tar, f"{row:06d}.ppm", stream.getvalue())
                    if label is not None:
                        _add(tar, f"{row:06d}.{CLASS}", str(int(label)).encode())
    return file


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _classnames(found: Any, collection: Collection, items: Sequence[Item]) -> dict[str, str]:
    """Return class names by number, in the order of the numbers; if no names are known, the numbers serve as names."""
    if collection.classnames:
        return {str(number): name for number, name in enumerate(collection.classnames)}
    names = next((own for key in KNOWN if (own := getattr(found, key, None))), ()) or sorted(getattr(found, "_characters", ()))
    if not names and (numbers := getattr(found, "class_to_idx", None)):
        names = sorted(numbers, key=numbers.get)
    if not names:
        return {str(value): str(value) for value in sorted({item.value for item in items} - {None})}
    firsts = Counter(map(_first, names))
    return {str(number): _plain(_first(name) if firsts[_first(name)] == 1 or isinstance(name, str) else ", ".join(name))
            for number, name in enumerate(names)}


def _first(name: str | Sequence[str]) -> str:
    """Return the first of the words for a class, if there are several (ImageNet)."""
    return name if isinstance(name, str) else name[0]


def _plain(name: str) -> str:
    """Return a name as people write it, without the number or the path before it."""
    name = re.sub(r"^(\d+ - |\d{3}\.|\d{5}_|/\w/)", "", name)  # "0 - zero", "001.ak47", "00000_Animalia", "/a/airfield"
    return " ".join(name.replace("_", " ").replace("/", " ").split())
