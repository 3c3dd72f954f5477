"""Lists of class names that people write: text, YAML or JSON."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from dassl.data.sheets import decoded
from dassl.utils.errors import DataError

MAX_BYTES = 2**20  # of a list; ImageNet-21k's takes 0.6 MB
MAX_LENGTH = 1000  # characters of a name; CLIP reads 77 tokens
N_SHOWN = 10

Pair = tuple[Any, Any]  # folder, class name


def read_classnames(file: Path) -> dict[str, str]:
    """Return class names by folder name, in the order of the labels.

    The file is text (one name per line, or all in one line with commas, semicolons or tabs between them; `# ` begins a
    comment), or a list or a mapping of folders to names in YAML or JSON. Raises DataError if it is something else, if a name
    is blank, has blanks at its ends or more than `MAX_LENGTH` characters, or if a folder or a name occurs twice: two folders
    of one class would be two classes with the same name.
    """
    text = _text(file)
    if file.suffix.lower() in (".yaml", ".yml"):
        pairs = _parsed(file, text, _of_yaml)
    elif file.suffix.lower() == ".json":
        pairs = _parsed(file, text, _of_json)
    else:
        pairs = _of_text(file, text)
    odd = [item for pair in pairs for item in pair if not isinstance(item, str)]
    if not pairs or odd:
        raise DataError(f"{file}: expected class names, one a line or as a list in YAML or JSON"
                        + (f"; {_shown(odd[:1])} is not text, put it in quotes" if odd else ""))
    names = [name for _, name in pairs]
    _refuse(file, [name for name in names if len(name) > MAX_LENGTH], f"have more than {MAX_LENGTH} characters")
    _refuse(file, [name for name in names if name != name.strip() or not name], "are blank or have blanks at their ends")
    _refuse(file, _doubled(folder for folder, _ in pairs), "stand twice")
    _refuse(file, _doubled(names), "stand twice")
    return dict(pairs)


def _text(file: Path) -> str:
    """Return the text of a file; raises DataError, without reading it, if it is larger than any list of classes."""
    try:
        if (n_bytes := file.stat().st_size) > MAX_BYTES:
            raise DataError(f"{file} has {n_bytes:,} bytes, but a list of class names at most {MAX_BYTES:,}")
        texts = decoded(file.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    if len(texts) > 1:
        raise DataError(f"{file} is not UTF-8; save it as such, since other encodings of a list cannot be told apart")
    return next(iter(texts.values()))


def _parsed(file: Path, text: str, parse: Callable[[str], list[Pair]]) -> list[Pair]:
    try:
        return parse(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {file}: {' '.join(str(error).split())}") from error


def _of_yaml(text: str) -> list[Pair]:
    """Return the pairs of a YAML list or mapping, as written: repeated keys and aliases are not resolved."""
    node = yaml.compose(text, yaml.SafeLoader)
    if isinstance(node, yaml.MappingNode):
        return [(_scalar(key), _scalar(value)) for key, value in node.value]
    return [(_scalar(item),) * 2 for item in node.value] if isinstance(node, yaml.SequenceNode) else []


def _scalar(node: yaml.Node) -> Any:
    """Return the text of a node; for anything but text, a value that is not a string and shows what was written."""
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.tag == "tag:yaml.org,2002:str" else (node.value,)
    return ("a list or mapping",)


def _of_json(text: str) -> list[Pair]:
    content = json.loads(text, object_pairs_hook=_Object)
    if isinstance(content, _Object):
        return list(content)
    return [(item, item) for item in content] if isinstance(content, list) else []


class _Object(list):
    """The pairs of a JSON object, in which a key may occur twice."""


def _of_text(file: Path, text: str) -> list[Pair]:
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return _of_json(text)
        except (ValueError, RecursionError):
            pass  # a class name may begin like this
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and line != "#" and not re.match(r"#\s", line)]
    if marked := [line for line in lines if line.startswith("#")]:
        raise DataError(f"{file}: {marked[0][:MAX_LENGTH]!r} may be a comment or a class name; a comment needs a blank after "
                        "the #, and such a name stands in quotes in a YAML or JSON list")
    if len(lines) == 1:
        lines = [name.strip() for name in re.split("[,;\t]", lines[0]) if name.strip()]
    elif len(lines) > 1 and all(line.endswith(",") for line in lines[:-1]):
        lines = [line.removesuffix(",").rstrip() for line in lines]
    return [(name, name) for name in lines]


def _doubled(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _refuse(file: Path, names: list[str], why: str) -> None:
    if names:
        raise DataError(f"{file}: these classes {why}: {_shown(names)}")


def _shown(names: Iterable[Any]) -> str:
    texts = [repr(name[0] if isinstance(name, tuple) else name) for name in names]
    return ", ".join(text if len(text) <= 100 else f"{text[:100]}..." for text in texts[:N_SHOWN]) + (
        ", ..." if len(texts) > N_SHOWN else "")
