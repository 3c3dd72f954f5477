"""The downloader against a local server that serves good, short, wrong, HTML and missing files. Row 21 of the faults table."""

import hashlib
import http.server
import inspect
import io
import json
import logging
import re
import tarfile
import threading

import numpy as np
import pytest
import torchvision
from PIL import Image

from dassl.utils.errors import DataError
from dassl.utils.files import write_json
from datasets import prepare as module
from datasets.prepare import fetch, main, prepare
from datasets.sources import SOURCES, Download, Source

HTML = b"<!DOCTYPE html><html><body>Quota exceeded</body></html>"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`; `server.short` maps a path to the bytes after which the connection is closed, once."""

    def do_GET(self):
        content = self.server.files.get(self.path)
        self.server.requests.append((self.path, self.headers.get("Range")))
        if content is None:
            self.send_error(404)
            return
        start = 0
        if (asked := self.headers.get("Range")) and self.server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:self.server.short.pop(self.path, None)])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    """A local server. Nothing is retried, so no test waits."""
    monkeypatch.setattr(module, "N_RETRIES", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files, running.short, running.requests, running.ranges = {}, {}, [], True
        running.url = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def test_a_good_file_is_fetched_and_verified(server, tmp_path):
    server.files["/a"] = b"content"
    assert fetch(f"{server.url}/a", tmp_path / "a", md5(b"content")).read_bytes() == b"content"


@pytest.mark.parametrize(("content", "digest", "message"), [
    (b"other", md5(b"content"), "its md5 is .*, not"), (HTML, "", "a web page instead of the file"),
    (HTML, md5(b"content"), "a web page instead of the file"), (b"", "", "an empty file")])
def test_a_file_that_is_not_what_it_should_be_is_refused_and_removed(server, tmp_path, content, digest, message):
    server.files["/a"] = content
    with pytest.raises(DataError, match=f"{server.url}/a serves {message}|{message}"):
        fetch(f"{server.url}/a", tmp_path / "a", digest)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_an_error_with_its_address(server, tmp_path):
    with pytest.raises(DataError, match=f"cannot download {server.url}/a: 404"):
        fetch(f"{server.url}/a", tmp_path / "a", "")
    assert not (tmp_path / "a").exists()


def test_no_server_is_an_error_with_the_address(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "N_RETRIES", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DataError, match=r"cannot download http://127\.0\.0\.1:9/a: .*refused"):
        fetch("http://127.0.0.1:9/a", tmp_path / "a", "")


def test_a_short_file_is_an_error_and_the_next_attempt_fetches_only_the_rest(server, tmp_path):
    content = bytes(range(256)) * 8000
    server.files["/a"], server.short["/a"] = content, 1_500_000
    with pytest.raises(DataError, match="cannot download"):
        fetch(f"{server.url}/a", tmp_path / "a", md5(content))
    assert not (tmp_path / "a").exists()
    n_had = sum(path.stat().st_size for path in tmp_path.glob("a*.part"))
    assert 0 < n_had <= 1_500_000
    assert fetch(f"{server.url}/a", tmp_path / "a", md5(content)).read_bytes() == content
    assert server.requests[-1] == ("/a", f"bytes={n_had}-")


@pytest.mark.parametrize("ranges", [False, True])
def test_what_cannot_be_continued_is_fetched_anew(server, tmp_path, ranges):
    """The server ignores ranges, or the file there is now another, shorter one."""
    old, new = bytes(2_000_000), b"new content"
    server.files["/a"], server.short["/a"], server.ranges = old, 1_000_000, ranges
    with pytest.raises(DataError):
        fetch(f"{server.url}/a", tmp_path / "a", md5(new))
    server.files["/a"] = new
    assert fetch(f"{server.url}/a", tmp_path / "a", md5(new)).read_bytes() == new
    assert list(tmp_path.glob("*.part")) == []


def test_a_json_file_may_differ_from_the_published_one_in_white_space(server, tmp_path):
    content = {"train": [["a.jpg", 0, "a"]]}
    published = json.dumps(content, indent=4, separators=(",", ": ")).encode()
    server.files["/split"] = json.dumps(content).encode()
    fetch(f"{server.url}/split", tmp_path / "split.json", md5(published))
    content["train"][0][1] = 1
    server.files["/split"] = json.dumps(content).encode()
    with pytest.raises(DataError, match="another file"):
        fetch(f"{server.url}/split", tmp_path / "other.json", md5(published))


@pytest.fixture
def dtd(server, tmp_path) -> Source:
    """DTD's layout with three images, on the server."""
    picture, archive = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture, "PNG")
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in ("a", "b", "c"):
            member = tarfile.TarInfo(f"dtd/images/banded/{name}.png")
            member.size = len(picture.getvalue())
            tar.addfile(member, io.BytesIO(picture.getvalue()))
    write_json(tmp_path / "split.json", {split: [[f"banded/{name}.png", 0, "banded"]]
                                         for split, name in zip(("train", "val", "test"), "abc", strict=True)})
    server.files["/split.json"] = (tmp_path / "split.json").read_bytes()
    server.files["/dtd.tgz"] = archive.getvalue()
    return Source("dtd", (1, 1, 1), (
        Download(f"{server.url}/split.json", "split_zhou_DescribableTextures.json", md5(server.files["/split.json"])),
        Download(f"{server.url}/dtd.tgz", "dtd.tgz", md5(archive.getvalue()), {"dtd/images": "images"})))


def test_a_data_set_is_laid_out_and_nothing_else_is_left(dtd, tmp_path):
    prepare("DTD", dtd, tmp_path / "data")
    found = sorted(str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert found == [*(f"dtd/images/banded/{name}.png" for name in "abc"), "dtd/split_zhou_DescribableTextures.json"]


def test_what_is_there_is_not_fetched_again(dtd, server, tmp_path):
    prepare("DTD", dtd, tmp_path / "data")
    server.requests.clear()
    prepare("DTD", dtd, tmp_path / "data")
    assert server.requests == []


@pytest.mark.parametrize(("content", "message"), [
    (b'{"train": [], "val": [], "test": []}', "another file: its md5 is .*, not"), (b"", "an empty file"),
    (HTML, "a web page")])
def test_a_wrong_file_of_the_right_name_is_not_called_ready(dtd, server, tmp_path, content, message):
    """Row 21: the error names it and says what to do, and the file is left alone."""
    prepare("DTD", dtd, tmp_path / "data")
    split = tmp_path / "data" / "dtd" / "split_zhou_DescribableTextures.json"
    split.write_bytes(content)
    with pytest.raises(DataError, match=rf"{split} is {message}.*; remove it and run this command again"):
        prepare("DTD", dtd, tmp_path / "data")
    assert split.read_bytes() == content
    split.unlink()
    prepare("DTD", dtd, tmp_path / "data")


def test_what_is_there_is_compared_and_the_log_says_with_what(dtd, tmp_path, caplog):
    """Row 21: nobody should believe that unpacked images were verified."""
    prepare("DTD", dtd, tmp_path / "data")
    with caplog.at_level(logging.INFO):
        prepare("DTD", dtd, tmp_path / "data")
    assert "split_zhou_DescribableTextures.json: there, its checksum is right" in caplog.text
    assert "images: there; no checksum is known" in caplog.text


def test_an_empty_image_in_its_place_is_not_called_ready(dtd, tmp_path):
    prepare("DTD", dtd, tmp_path / "data")
    (tmp_path / "data" / "dtd" / "images" / "banded" / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)1 image files are empty.*banded/b\.png"):
        prepare("DTD", dtd, tmp_path / "data")


def test_a_failure_leaves_no_half_and_the_next_attempt_goes_on(dtd, server, tmp_path):
    server.short["/dtd.tgz"] = 100
    with pytest.raises(DataError):
        prepare("DTD", dtd, tmp_path / "data")
    assert not (tmp_path / "data" / "dtd" / "images").exists()
    server.requests.clear()
    prepare("DTD", dtd, tmp_path / "data")
    assert "/split.json" not in [path for path, _ in server.requests]


def test_an_unsafe_archive_leaves_nothing_in_the_folder(dtd, server, tmp_path):
    """Row 20."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("dtd/images/good.png"))
        tar.addfile(tarfile.TarInfo("../../../evil.png"))
    server.files["/dtd.tgz"] = archive.getvalue()
    source = Source("dtd", (1, 1, 1), (Download(f"{server.url}/dtd.tgz", "dtd.tgz", "", {"dtd/images": "images"}),))
    with pytest.raises(DataError, match="leads out of the folder"):
        prepare("DTD", source, tmp_path / "data")
    assert not (tmp_path / "data" / "dtd" / "images").exists()
    assert list(tmp_path.rglob("evil.png")) == []


def test_a_data_set_of_another_size_is_refused(dtd, tmp_path):
    with pytest.raises(DataError, match=r"\(1, 1, 1\) train, val and test images, not \(2, 1, 1\)"):
        prepare("DTD", Source(dtd.folder, (2, 1, 1), dtd.downloads), tmp_path / "data")


def test_an_archive_inside_an_archive_is_unpacked(server, tmp_path):
    """Caltech101 has this form."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("101_ObjectCategories/ant/a.jpg"))
    with tarfile.open(fileobj=outer, mode="w") as tar:
        member = tarfile.TarInfo("caltech-101/inner.tar.gz")
        member.size = len(inner.getvalue())
        tar.addfile(member, io.BytesIO(inner.getvalue()))
    server.files["/a.tar"] = outer.getvalue()
    (tmp_path / "staging").mkdir()
    module._bring(Download(f"{server.url}/a.tar", "a.tar", "", {"101_ObjectCategories": "101_ObjectCategories"},
                           "caltech-101/inner.tar.gz"), tmp_path / "staging", tmp_path)
    assert (tmp_path / "101_ObjectCategories" / "ant" / "a.jpg").exists()


@pytest.mark.parametrize("name", SOURCES)
def test_every_failure_prints_the_manual_steps(name, server, tmp_path, monkeypatch, capsys):
    """With every address answering 404, for each of the eleven sets."""
    source = SOURCES[name]
    gone = tuple(Download(f"{server.url}/{download.file}", download.file, download.digest, download.products)
                 for download in source.downloads)
    monkeypatch.setitem(SOURCES, name, Source(source.folder, source.sizes, gone, source.by_hand))
    assert main([name, "--root", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert "404" in printed and "By hand, for" in printed
    assert all(download.url in printed for download in gone)
    assert all(step in printed for step in source.by_hand.values())


def test_what_no_address_serves_is_asked_for(server, tmp_path, monkeypatch, capsys):
    """For Stanford Cars, the split file is downloaded but the images cannot be."""
    server.files["/split.json"] = b"{}"
    source = Source("stanford_cars", (1, 1, 1), (Download(f"{server.url}/split.json", "split_zhou_StanfordCars.json"),),
                    SOURCES["StanfordCars"].by_hand)
    monkeypatch.setitem(SOURCES, "StanfordCars", source)
    assert main(["StanfordCars", "--root", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert "no address serves cars_train and cars_test" in printed and "Kaggle" in printed


def test_an_unknown_name_is_an_error_with_the_nearest(capsys):
    assert main(["Caltech", "--root", "."]) == 2
    assert "did you mean 'Caltech101'?" in capsys.readouterr().err


def test_checksums_of_images_are_torchvision_s():
    """All MD5 sums of the table occur in torchvision's own sources."""
    modules = (torchvision.datasets.caltech, torchvision.datasets.dtd, torchvision.datasets.eurosat,
               torchvision.datasets.flowers102, torchvision.datasets.food101, torchvision.datasets.oxford_iiit_pet,
               torchvision.datasets.sun397)
    sources = "".join(inspect.getsource(module) for module in modules)
    sums = [download.digest[4:] for source in SOURCES.values() for download in source.downloads
            if download.digest.startswith("md5:")]
    assert len(sums) == 9
    assert [checksum for checksum in sums if checksum not in sources] == []
