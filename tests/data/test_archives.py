"""Unpacking: row 20 of the faults table."""

import io
import tarfile
import zipfile

import pytest

from dassl.data import archives
from dassl.data.archives import unpack
from dassl.utils.errors import DataError


def tar_of(path, *members: tuple[tarfile.TarInfo, bytes]):
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def zip_of(path, members: dict[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def files_below(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_good_archive_unpacks_whole(tmp_path):
    content = {"a/b.txt": b"one", "c.txt": b"two"}
    unpack(zip_of(tmp_path / "a.zip", content), tmp_path / "zip")
    unpack(tar_of(tmp_path / "a.tgz", *((tarfile.TarInfo(name), data) for name, data in content.items())), tmp_path / "tar")
    assert files_below(tmp_path / "zip") == files_below(tmp_path / "tar") == content


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_member_that_leads_out_of_the_folder_is_refused(tmp_path, name, kind):
    archive = (zip_of(tmp_path / "a.zip", {name: b"x"}) if kind == "zip"
               else tar_of(tmp_path / "a.tar", (tarfile.TarInfo(name), b"x")))
    with pytest.raises(DataError, match="leads out of the folder"):
        unpack(archive, tmp_path / "out" / "deep")
    assert [path.name for path in tmp_path.rglob("evil*")] == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_file_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("innocent.txt")
    member.type, member.linkname = kind, "../../etc/passwd"
    with pytest.raises(DataError, match="link or a device"):
        unpack(tar_of(tmp_path / "a.tar", (member, b"")), tmp_path / "out")


def test_a_link_in_a_zip_file_is_refused(tmp_path):
    member = zipfile.ZipInfo("innocent.txt")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match="link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "MAX_SMALL", 1000)
    zeros = bytes(1_000_000)
    archive = (zip_of(tmp_path / "a.zip", {"zeros": zeros}) if kind == "zip"
               else tar_of(tmp_path / "a.tgz", (tarfile.TarInfo("zeros"), zeros)))
    with pytest.raises(DataError, match="bomb"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "zeros").exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_a_damaged_archive_is_one_error(tmp_path, name):
    content = bytes(range(256)) * 4000
    archive = (zip_of(tmp_path / name, {"a": content}) if name == "a.zip"
               else tar_of(tmp_path / name, (tarfile.TarInfo("a"), content)))
    archive.write_bytes(archive.read_bytes()[:1500])
    with pytest.raises(DataError, match="cannot unpack"):
        unpack(archive, tmp_path / "out")
