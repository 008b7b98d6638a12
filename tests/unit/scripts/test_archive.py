"""What a tar may put where."""

import io
import tarfile
from pathlib import Path

import pytest

from classifier.archives import unpack_tar


def write_tar(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for member in members:
            packed.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def test_files_and_folders_are_unpacked(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar.gz", member("./new", tarfile.DIRTYPE), member("new/deep/file", size=3))
    unpack_tar(tar, tmp_path / "out")
    assert (tmp_path / "out" / "new" / "deep" / "file").read_bytes() == b"xxx"


@pytest.mark.parametrize(
    "bad", [member("../outside"), member("/outside"), member("link", tarfile.SYMTYPE, link="/etc/passwd")]
)
def test_what_leads_out_is_refused(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    with pytest.raises(tarfile.TarError, match=r"leads out of the folder|neither a file nor a folder"):
        unpack_tar(write_tar(tmp_path / "a.tar.gz", bad), tmp_path / "out")
    assert not list(tmp_path.rglob("outside"))
