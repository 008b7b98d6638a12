"""Archives that mean harm, or came to it."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from classifier.errors import DataError
from dataset.archives import extract, is_archive, unsafe_name

LIMIT = 10_000_000
HOSTILE = {
    "../outside.txt": "a path that leaves the folder",
    "a/../../outside.txt": "a path that leaves the folder",
    "/outside.txt": "an absolute path",
    "C:/outside.txt": "a path on a drive",
    "c:outside.txt": "a path on a drive",
    "a\\..\\outside.txt": "a path with backslashes",
    "a/line\nbreak.txt": "a name with control characters",
}
Pack = Callable[[Path, Mapping[str, bytes]], Path]


def pack_zip(folder: Path, files: Mapping[str, bytes]) -> Path:
    path = folder / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def pack_tar(folder: Path, files: Mapping[str, bytes], compression: str = "") -> Path:
    path = folder / f"photos.tar{'.' if compression else ''}{compression}"
    with tarfile.open(path, f"w:{compression}") as file:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_a_tar_of_any_compression_is_extracted(tmp_path: Path, compression: str) -> None:
    files = {"train/cat/1.jpg": b"one", "train/dog/2.jpg": b"two" * 1000}
    archive = pack_tar(tmp_path, files, compression)
    assert is_archive(archive)
    assert extract(archive, tmp_path / "out", max_bytes=LIMIT) == []
    assert files_below(tmp_path / "out") == files


def test_litter_is_not_extracted(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path, {"cat/1.jpg": b"1", "__MACOSX/cat/._1.jpg": b"2", "cat/.DS_Store": b"3"})
    assert extract(archive, tmp_path / "out", max_bytes=LIMIT) == []
    assert files_below(tmp_path / "out") == {"cat/1.jpg": b"1"}


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_no_path_leaves_the_folder(tmp_path: Path, pack: Pack) -> None:
    (tmp_path / "inner").mkdir()
    archive = pack(tmp_path, {"cat/good.jpg": b"good"} | dict.fromkeys(HOSTILE, b"bad"))
    left_out = extract(archive, tmp_path / "inner" / "out", max_bytes=LIMIT)
    assert {defect.place: defect.reason for defect in left_out} == HOSTILE
    assert {defect.kind for defect in left_out} == {"unsafe"}
    assert files_below(tmp_path / "inner") == {"out/cat/good.jpg": b"good"}


def test_links_and_devices_of_a_tar_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as file:
        for name, kind, target in [
            ("cat", tarfile.SYMTYPE, "/etc"),
            ("cat/1.jpg", tarfile.REGTYPE, ""),
            ("hard.jpg", tarfile.LNKTYPE, "../../etc/passwd"),
            ("pipe", tarfile.FIFOTYPE, ""),
            ("null", tarfile.CHRTYPE, ""),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            file.addfile(info)
    left_out = extract(path, tmp_path / "out", max_bytes=LIMIT)
    assert {defect.place: defect.reason for defect in left_out} == {
        "cat": "a link",
        "hard.jpg": "a link",
        "pipe": "not a plain file",
        "null": "not a plain file",
    }
    assert [path.as_posix() for path in (tmp_path / "out").rglob("*") if path.is_symlink()] == []
    assert files_below(tmp_path / "out") == {"cat/1.jpg": b""}


def test_a_link_of_a_zip_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    info = zipfile.ZipInfo("cat")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(info, "/etc")
    assert [defect.reason for defect in extract(path, tmp_path / "out", max_bytes=LIMIT)] == ["a link"]
    assert not (tmp_path / "out" / "cat").exists()


def test_a_second_entry_of_a_name_does_not_replace_the_first(tmp_path: Path) -> None:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as file:
        for data in (b"first", b"other"):
            info = tarfile.TarInfo("cat/1.jpg")
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    left_out = extract(path, tmp_path / "out", max_bytes=LIMIT)
    assert [(defect.place, defect.reason) for defect in left_out] == [("cat/1.jpg", "a second entry of this name")]
    assert files_below(tmp_path / "out") == {"cat/1.jpg": b"first"}


@pytest.mark.parametrize("files", [{"cat": b"1", "cat/1.jpg": b"2"}, {"cat/" + "x" * 300: b"1"}])
def test_what_no_file_system_takes_is_left_out(tmp_path: Path, files: Mapping[str, bytes]) -> None:
    left_out = extract(pack_tar(tmp_path, files), tmp_path / "out", max_bytes=LIMIT)
    assert [defect.kind for defect in left_out] == ["unsafe"]


@pytest.mark.parametrize("pack", [pack_zip, lambda folder, files: pack_tar(folder, files, "gz")])
def test_a_bomb_stops_at_the_limit(tmp_path: Path, pack: Pack) -> None:
    archive = pack(tmp_path, {"cat/1.jpg": bytes(5_000_000)})
    assert archive.stat().st_size < 10_000
    with pytest.raises(DataError, match="more than --max-size allows"):
        extract(archive, tmp_path / "out", max_bytes=1_000_000)
    assert sum(map(len, files_below(tmp_path / "out").values())) <= 1_000_000


def test_a_zip_that_lies_about_its_size_gives_no_more_than_it_claims(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path, {"cat/1.jpg": bytes(5_000_000)})
    data = archive.read_bytes().replace((5_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    archive.write_bytes(data)
    left_out = extract(archive, tmp_path / "out", max_bytes=1_000_000)
    assert [defect.kind for defect in left_out] == ["corrupt"]
    assert files_below(tmp_path / "out") == {}


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path, {f"cat/{number}.jpg": b"" for number in range(11)})
    with pytest.raises(DataError, match="holds more than 10 entries"):
        extract(archive, tmp_path / "out", max_bytes=LIMIT, max_entries=10)


def test_a_tar_header_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 4_000_000_000
    path = tmp_path / "photos.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(DataError, match="a header claims 4 GB"):
        extract(path, tmp_path / "out", max_bytes=LIMIT)


def test_a_damaged_file_of_a_zip_costs_only_itself(tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("cat/1.jpg", b"the bytes of the first")
        file.writestr("cat/2.jpg", b"the bytes of the second")
    archive.write_bytes(archive.read_bytes().replace(b"the bytes of the first", b"the bytes of the WORST"))
    left_out = extract(archive, tmp_path / "out", max_bytes=LIMIT)
    assert [(defect.kind, defect.place) for defect in left_out] == [("corrupt", "cat/1.jpg")]
    assert files_below(tmp_path / "out") == {"cat/2.jpg": b"the bytes of the second"}


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_half_a_tar_is_an_error(tmp_path: Path, compression: str) -> None:
    files = {f"cat/{number}.jpg": bytes(range(256)) * (number + 40) for number in range(20)}
    archive = pack_tar(tmp_path, files, compression)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    assert is_archive(archive)
    with pytest.raises(DataError, match=r"can't be read as a zip or tar .* fetch it again"):
        extract(archive, tmp_path / "out", max_bytes=LIMIT)


def test_half_a_zip_is_an_error(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path, {"cat/1.jpg": bytes(range(256)) * 10})
    archive.write_bytes(archive.read_bytes()[:200])
    assert is_archive(archive)
    with pytest.raises(DataError, match="can't be read as a zip or tar"):
        extract(archive, tmp_path / "out", max_bytes=LIMIT)


def test_a_tar_damaged_in_its_midst_is_an_error(tmp_path: Path) -> None:
    archive = pack_tar(tmp_path, {"cat/1.jpg": b"1", "cat/2.jpg": b"2"})
    data = bytearray(archive.read_bytes())
    data[1024:1124] = b"\xff" * 100
    archive.write_bytes(data)
    with pytest.raises(DataError, match="a damaged header in its midst"):
        extract(archive, tmp_path / "out", max_bytes=LIMIT)


def test_an_encrypted_zip_is_an_error(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path, {"cat/1.jpg": b"secret"})
    data = bytearray(archive.read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(start) + offset] |= 1
    archive.write_bytes(data)
    with pytest.raises(DataError, match="is encrypted"):
        extract(archive, tmp_path / "out", max_bytes=LIMIT)


@pytest.mark.parametrize("name", ["cat/1.jpg", "a..b/c", "café/ß.jpg", "..."])
def test_ordinary_names_are_safe(name: str) -> None:
    assert unsafe_name(name) == ""
