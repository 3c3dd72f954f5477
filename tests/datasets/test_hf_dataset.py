"""HFDataset against a local server that speaks as much of the hub's language as `huggingface_hub` needs."""

import hashlib
import http.server
import json
import re
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import datasets  # noqa: F401  registers the data sets
from dassl.data.dataset import DATASETS, SPLITS
from dassl.data.images import read_bytes
from dassl.utils.errors import ConfigError, DataError
from tests.datasets.made import NAMES, encoded, write_parquet
from tests.datasets.test_shards import samples, write_shard

SHA = "0123456789abcdef0123456789abcdef01234567"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files` by repository and path, as branch `main`. Of those in `server.broken` it sends only half."""

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(path)
        if found := re.fullmatch(r"/api/datasets/(\w+/[\w-]+)/(revision|tree)/([^/]+)(/.*)?", path):
            return self._api(*found.groups()[:3])
        if found := re.fullmatch(r"/datasets/(\w+/[\w-]+)/resolve/([^/]+)/(.*)", path):
            return self._file(found[1], found[3])
        return self._missing("EntryNotFound")

    do_HEAD = do_GET

    def _api(self, name: str, kind: str, revision: str) -> None:
        if name not in self.server.files:
            return self._missing("RepoNotFound")
        if revision not in ("main", SHA):
            return self._missing("RevisionNotFound")
        files = self.server.files[name]
        own = [{"type": "file", "path": path, "rfilename": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest(),
                "blobId": hashlib.sha1(content).hexdigest()} for path, content in files.items()]
        content = own if kind == "tree" else {"id": name, "sha": SHA, "siblings": own, "tags": [], "private": False,
                                              "downloads": 0, "likes": 0, "disabled": False, "gated": False}
        self._answer(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, path: str) -> None:
        if path in self.server.refused:
            return self.send_error(403)
        content = self.server.files[name][path]
        self._answer(content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": SHA})

    def _answer(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for header in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(*header)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files, running.requests, running.refused = {}, [], set()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def build(root: Path, repo: str = "owner/pets", **parameters):
    return DATASETS["HFDataset"].build(root, repo=repo, **parameters)


def served(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def pets(hub, tmp_path) -> dict[str, bytes]:
    """A repository as written by `push_to_hub`, with one file that is not needed."""
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "pets" / "data" / "train-00000-of-00001-0a.parquet", range(8))
    write_parquet(tmp_path / "pets" / "data" / "test-00000-of-00001-1b.parquet", range(8, 12))
    hub.files["owner/pets"] = served(tmp_path / "pets") | {
        "README.md": b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
                     b"  - split: test\n    path: data/test-*\n---\n# Pets\n", "movie.mp4": b"0" * 1000}
    return hub.files["owner/pets"]


def image_repository(hub) -> None:
    """A repository of class folders without a table."""
    hub.files["owner/folders"] = {f"{split}/{name}/{row}.png": encoded(row) for split, rows in
                                  (("train", range(4)), ("test", range(4, 6))) for row in rows for name in ("cat", "dog")}


def test_a_repository_is_fetched_once_and_read_without_a_network(hub, pets, tmp_path, monkeypatch):
    first = build(tmp_path / "data")
    assert first.classnames == NAMES and [len(first.split(split)) for split in SPLITS] == [8, 0, 4]
    assert [read_bytes(file) for file in first.files("test")] == [encoded(row) for row in range(8, 12)]
    assert first.name == "owner--pets" and first.root == tmp_path / "data" / "owner--pets"
    assert sorted(served(first.root)) == sorted(set(pets) - {"movie.mp4"})
    n_requests = len(hub.requests)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert build(tmp_path / "data") == first
    assert len(hub.requests) == n_requests


def test_folders_of_classes_are_read_as_such(hub, tmp_path):
    image_repository(hub)
    dataset = build(tmp_path, "owner/folders")
    assert dataset.classnames == ("cat", "dog") and [len(dataset.split(split)) for split in SPLITS] == [8, 0, 4]
    assert read_bytes(dataset.files("train")[0]) == encoded(0) and dataset.name == "owner--folders"


def test_shards_are_read_as_such(hub, tmp_path):
    """As in CLIP benchmark, the class names are in a file next to the shards."""
    for split, rows in (("train", range(4)), ("test", range(4, 6))):
        write_shard(tmp_path / "wds" / split / "0.tar", samples(rows))
    hub.files["owner/wds"] = served(tmp_path / "wds") | {"classnames.txt": b"cat\ndog\n", "test/nshards.txt": b"1"}
    dataset = build(tmp_path, "owner/wds")
    assert dataset.classnames == ("cat", "dog") and [len(dataset.split(split)) for split in SPLITS] == [4, 0, 2]
    assert read_bytes(dataset.files("test")[0]) == encoded(4)


def test_without_a_network_one_line_says_what_to_bring_where(tmp_path, monkeypatch):
    """Row 44: files that were put there by hand are read."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError) as caught:
        build(tmp_path, "owner/folders")
    message = str(caught.value)
    assert "\n" not in message and "cannot fetch owner/folders from http://127.0.0.1:9: " in message
    assert message.endswith(f"download the files of http://127.0.0.1:9/datasets/owner/folders/tree/main elsewhere and put them "
                            f"into {tmp_path / 'owner--folders'}")
    for name in ("cat", "dog"):
        for row in range(9):
            file = tmp_path / "owner--folders" / name / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(row))
    assert len(build(tmp_path, "owner/folders").train) == 8


def test_offline_mode_is_heeded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"cannot fetch owner/pets .* put them into .*owner--pets"):
        build(tmp_path)


def test_a_fetch_that_breaks_off_leaves_nothing_that_looks_whole_and_goes_on(hub, tmp_path):
    image_repository(hub)
    hub.refused.add("train/dog/3.png")
    with pytest.raises(DataError, match="cannot fetch owner/folders"):
        build(tmp_path, "owner/folders")
    assert not (tmp_path / "owner--folders").exists()
    hub.refused.clear()
    assert len(build(tmp_path, "owner/folders").train) == 8
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize(("repo", "parameters", "error", "message"), [
    ("owner/none", {}, DataError, "has no data set owner/none of revision main that you may read"),
    ("owner/folders", {"revision": "v9"}, DataError, "has no data set owner/folders of revision v9"),
    ("", {}, ConfigError, "DATASET.HFDATASET.REPO is not set"),
    ("../a b", {}, ConfigError, r"DATASET.HFDATASET.REPO is '\.\./a b', but must be the name of a data set on the hub")])
def test_what_is_not_there_is_one_line(hub, tmp_path, repo, parameters, error, message):
    image_repository(hub)
    with pytest.raises(error, match=message) as caught:
        build(tmp_path, repo, **parameters)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".") and path.name != "hub"]


def test_another_revision_has_a_folder_of_its_own(hub, tmp_path):
    image_repository(hub)
    assert build(tmp_path, "owner/folders", revision=SHA).root == tmp_path / f"owner--folders@{SHA}"


def test_one_of_several_data_sets_is_chosen(hub, pets, tmp_path):
    """The card lists them; without a card, each has its own folder. Only the files of the chosen one are fetched."""
    hub.files["owner/two"] = {path.replace("data", name): content for path, content in pets.items() if path.startswith("data/")
                              for name in ("small", "large")}
    dataset = build(tmp_path / "a", "owner/two", subset="small")
    assert dataset.root.name == "owner--two--small"
    assert {path.split("/")[0] for path in served(dataset.root)} == {"small"} and len(dataset.train) == 8
    with pytest.raises(DataError, match="several tables"):
        build(tmp_path / "b", "owner/two")
    hub.files["owner/two"]["README.md"] = (
        b"---\nconfigs:\n- config_name: s\n  data_files: small/train-*\n- config_name: l\n  data_files: large/train-*\n---\n")
    with pytest.raises(ConfigError, match=r"several data sets; name one in DATASET.HFDATASET.SUBSET: .*known: l, s"):
        build(tmp_path / "c", "owner/two")
    dataset = build(tmp_path / "d", "owner/two", subset="s")
    assert {path for path in served(dataset.root) if path.endswith("parquet")} == {"small/train-00000-of-00001-0a.parquet"}


def test_a_card_names_no_file_outside(hub, pets, tmp_path):
    pets["README.md"] = b"---\nconfigs:\n- config_name: default\n  data_files: ../../secret/*\n---\n"
    with pytest.raises(DataError, match=r"names the file \.\./\.\./secret/\*, which is none of its own"):
        build(tmp_path / "data")
