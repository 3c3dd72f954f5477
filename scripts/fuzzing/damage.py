"""Damage to values, trees, texts, bytes and files: the building blocks of odd inputs, all drawn from one seeded generator."""

import contextlib
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from dassl.utils.files import json_hash

VALUES = (
    None, True, False, 0, 1, -1, 2, 3, 77, 1000, 2**31, 2**32, 2**63, -(2**63), 10**30, 0.0, -0.5, 0.5, 1.5, 1e-300, 1e18,
    1e308, float("inf"), float("nan"), "", " ", "a", "é", "a\nb", "\x1b[2J", "a" * 300, "../..", "~", "~nobody/x",
    "/", ".", "1:2:3",
    "\ud800", "caf\udce9",
    "010", "1e3", "nan", "true", "[]", "[[a]]", "{}", "{[]}", "'", "*a", "&a", "!!int x", "<<", "none", "all", "%",
    "1%", "1e999%",
    "train", [], {}, [[]], [{}], [None], [1], [0.5, 0.1], [5, 9], ["a"], [["a"]], ["a", "a"], {"a": 1}, {"": ""},
    {"NAME": "a"})
BYTES = (b"", b"\0", b"\xff", b"\xe9", b"\xef\xbb\xbf", b"\xff\xfe", b"{", b"[", b"[" * 2000,
         b'"', b",", b"\n", b"\r\n", b";", b"\t",
         b": ", b"&a [*a]", b"!!binary x", b"NaN", b"1e999", b"-", b"\xed\xa0\x80", b"null", b"9" * 5000,
         b"\x00" * 100, b"a" * 10_000)
NAMES = ("a" * 255, "a" * 256, "a" * 5000, "a\0b", "\ud800", os.fsdecode(b"caf\xe9"), "a\nb", " ", "é" * 200,
         "x/" * 600, "-", "--", "=1+1", "*", "~nobody/x", "..", "[a]", "a.yaml", "a.json", "a" * 250 + ".yaml")
DAMAGE = ("bytes", "bytes", "bytes", "empty", "pipe", "socket", "folder", "loop", "endless", "dangling", "absent")


def damaged_value(rng: Random) -> Any:
    """Return a value that hardly any code expects; it shares no part with other values."""
    value = rng.choice(VALUES)
    return json.loads(json.dumps(value)) if isinstance(value, (list, dict)) else value


def damaged_tree(tree: Any, rng: Random) -> Any:
    """Return a tree of JSON after one to three changes: a part replaced, left out, doubled or put elsewhere."""
    tree = [json.loads(json.dumps(tree))]
    for _ in range(rng.randint(1, 3)):
        parent, key = rng.choice(list(_places(tree)))
        how = rng.choice(("replace", "replace", "remove", "swap", "wrap"))
        if how == "remove" and parent is not tree:
            del parent[key]
        elif how == "swap":
            other, place = rng.choice(list(_places(tree)))
            parent[key] = json.loads(json.dumps(other[place]))
        elif how == "wrap":
            parent[key] = rng.choice(([parent[key]], {"a": parent[key]}))
        else:
            parent[key] = damaged_value(rng)
    return tree[0]


def damaged_bytes(content: bytes, rng: Random) -> bytes:
    """Return bytes after one to four changes: some replaced, removed, doubled, cut off or put in."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randint(0, len(content))
        stop = min(len(content), start + rng.choice((1, 4, 30, 1000)))
        middle = rng.choice((rng.choice(BYTES), rng.randbytes(stop - start), content[start:stop] * 2, b""))
        content = content[:start] + middle + (b"" if rng.random() < 0.1 else content[stop:])
    return content


def write_tree(path: Path, tree: Any, rng: Random) -> None:
    """Write a damaged tree as JSON, at times with damaged bytes too, or, for a record, with a checksum that fits."""
    tree = damaged_tree(tree, rng)
    if isinstance(tree, dict) and "checksum" in tree and rng.random() < 0.8:
        content = {key: value for key, value in tree.items() if key != "checksum"}
        with contextlib.suppress(ValueError, TypeError):
            tree = content | {"checksum": json_hash(content)}
    text = json.dumps(tree).encode()
    path.write_bytes(damaged_bytes(text, rng) if rng.random() < 0.2 else text)


def damage_file(path: Path, rng: Random, hows: Sequence[str] = DAMAGE) -> None:
    """Change what is at a path: its bytes, or replace the file by something that is not a file."""
    content = path.read_bytes() if path.is_file() else b""
    how = rng.choice(hows)
    if how == "bytes":
        path.write_bytes(damaged_bytes(content, rng))
        return
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    put_odd(path, how)


def put_odd(path: Path, how: str) -> None:
    """Create something at an empty path; "absent" creates nothing."""
    if how == "empty":
        path.touch()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how in ("loop", "endless", "dangling"):
        path.symlink_to({"loop": path, "endless": "/dev/zero", "dangling": "nowhere"}[how])
    elif how == "socket":
        with socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):  # a path may be too long for one
            server.bind(str(path))


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return each part of a tree as its container and its key there."""
    found, containers = [], [tree]
    while containers:
        container = containers.pop()
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            found.append((container, key))
            if isinstance(value, (dict, list)):
                containers.append(value)
    return found
