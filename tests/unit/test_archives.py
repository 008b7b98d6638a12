"""Extraction of archives that are hostile or damaged."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from classifier.archives import ArchiveError, ArchiveTooLargeError, extract, is_archive, unpack_tar, unsafe_name

HOSTILE = {
    "../outside.txt": "a path that leads out of the folder",
    "a/../../outside.txt": "a path that leads out of the folder",
    "/outside.txt": "an absolute path",
    "C:/outside.txt": "a path on a drive",
    "c:outside.txt": "a path on a drive",
    "a\\..\\outside.txt": "a path with backslashes",
    "a/line\nbreak.txt": "a name with control characters",
}
DEVICES = {
    "link": (tarfile.SYMTYPE, "a link"),
    "hard.jpg": (tarfile.LNKTYPE, "a link"),
    "pipe": (tarfile.FIFOTYPE, "not a regular file"),
    "null": (tarfile.CHRTYPE, "not a regular file"),
    "disk": (tarfile.BLKTYPE, "not a regular file"),
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
            file.addfile(member(name, size=len(data)), io.BytesIO(data))
    return path


def pack_members(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for info in members:
            file.addfile(info, io.BytesIO(b"x" * info.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_a_tar_of_any_compression_is_extracted(tmp_path: Path, compression: str) -> None:
    files = {"train/cat/1.jpg": b"one", "train/dog/2.jpg": b"two" * 1000}
    archive = pack_tar(tmp_path, files, compression)
    assert is_archive(archive)
    assert extract(archive, tmp_path / "out") == []
    assert files_below(tmp_path / "out") == files


def test_ignored_files_and_folders_are_neither_extracted_nor_reported(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path, {"cat/1.jpg": b"1", "junk/cat/._1.jpg": b"2", "cat/junk": b"3"})
    assert extract(archive, tmp_path / "out", ignore=lambda name: name == "junk") == []
    assert files_below(tmp_path / "out") == {"cat/1.jpg": b"1"}


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_no_path_leads_out_of_the_folder(tmp_path: Path, pack: Pack) -> None:
    (tmp_path / "inner").mkdir()
    archive = pack(tmp_path, {"cat/good.jpg": b"good"} | dict.fromkeys(HOSTILE, b"bad"))
    skipped = extract(archive, tmp_path / "inner" / "out")
    assert {entry.name: entry.reason for entry in skipped} == HOSTILE
    assert not any(entry.is_damaged for entry in skipped)
    assert files_below(tmp_path / "inner") == {"out/cat/good.jpg": b"good"}


def test_links_and_devices_of_a_tar_are_skipped(tmp_path: Path) -> None:
    members = [member(name, kind, link="../../etc/passwd") for name, (kind, _) in DEVICES.items()]
    archive = pack_members(tmp_path / "photos.tar", *members, member("link/1.jpg", size=1))
    skipped = extract(archive, tmp_path / "out")
    assert {entry.name: entry.reason for entry in skipped} == {name: reason for name, (_, reason) in DEVICES.items()}
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()] == []
    assert files_below(tmp_path / "out") == {"link/1.jpg": b"x"}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (stat.S_IFLNK, "a link"),
        (stat.S_IFCHR, "not a regular file"),
        (stat.S_IFBLK, "not a regular file"),
        (stat.S_IFIFO, "not a regular file"),
        (stat.S_IFSOCK, "not a regular file"),
    ],
)
def test_links_and_devices_of_a_zip_are_skipped(tmp_path: Path, kind: int, reason: str) -> None:
    special, ordinary = zipfile.ZipInfo("cat"), zipfile.ZipInfo("dog/1.jpg")
    special.external_attr, ordinary.external_attr = (kind | 0o777) << 16, (stat.S_IFREG | 0o644) << 16
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(special, "/etc")
        file.writestr(ordinary, b"1")
    assert extract(archive, tmp_path / "out") == [("cat", reason, False)]
    assert files_below(tmp_path / "out") == {"dog/1.jpg": b"1"}


def test_a_second_entry_of_a_name_does_not_replace_the_first(tmp_path: Path) -> None:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as file:
        for data in (b"first", b"other"):
            file.addfile(member("cat/1.jpg", size=len(data)), io.BytesIO(data))
    assert extract(path, tmp_path / "out") == [("cat/1.jpg", "a second entry of this name", False)]
    assert files_below(tmp_path / "out") == {"cat/1.jpg": b"first"}


@pytest.mark.parametrize("files", [{"cat": b"1", "cat/1.jpg": b"2"}, {"cat/" + "x" * 300: b"1"}])
def test_names_that_no_file_system_takes_are_skipped(tmp_path: Path, files: Mapping[str, bytes]) -> None:
    skipped = extract(pack_tar(tmp_path, files), tmp_path / "out")
    assert [entry.is_damaged for entry in skipped] == [False]


@pytest.mark.parametrize("pack", [pack_zip, lambda folder, files: pack_tar(folder, files, "gz")])
def test_a_bomb_stops_at_the_limit_and_leaves_nothing(tmp_path: Path, pack: Pack) -> None:
    archive = pack(tmp_path, {"cat/1.jpg": b"small", "cat/2.jpg": bytes(5_000_000)})
    assert archive.stat().st_size < 10_000
    with pytest.raises(ArchiveTooLargeError, match="more than the limit of 1,000,000"):
        extract(archive, tmp_path / "out", max_bytes=1_000_000)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_the_limit_counts_all_files_and_is_inclusive(tmp_path: Path, pack: Pack) -> None:
    archive = pack(tmp_path, {"cat/1.jpg": bytes(600), "cat/2.jpg": bytes(400)})
    assert extract(archive, tmp_path / "out", max_bytes=1000) == []
    with pytest.raises(ArchiveTooLargeError):
        extract(archive, tmp_path / "less", max_bytes=999)


def test_a_zip_with_a_false_size_gives_no_more_than_it_claims(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path, {"cat/1.jpg": bytes(5_000_000)})
    data = archive.read_bytes().replace((5_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    archive.write_bytes(data)
    skipped = extract(archive, tmp_path / "out", max_bytes=1_000_000)
    assert [entry.is_damaged for entry in skipped] == [True]
    assert files_below(tmp_path / "out") == {}


def test_a_zip_larger_than_the_free_space_is_refused_before_it_is_extracted(tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("cat/1.jpg", b"1")
        file.infolist()[0].file_size = 10**19  # written into the central directory
    with pytest.raises(ArchiveError, match=r"holds 10,000,000,000,000,000,000 bytes, and the disk of .* left"):
        extract(archive, tmp_path / "out", max_bytes=10**20)


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_too_many_entries_are_refused(tmp_path: Path, pack: Pack) -> None:
    archive = pack(tmp_path, {f"cat/{number}.jpg": b"" for number in range(11)})
    with pytest.raises(ArchiveError, match="holds more than 10 entries"):
        extract(archive, tmp_path / "out", max_entries=10)
    assert not (tmp_path / "out").exists()
    assert extract(archive, tmp_path / "out", max_entries=11) == []


def test_a_tar_header_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "photos.tar"
    path.write_bytes(
        member("long", tarfile.GNUTYPE_LONGNAME, size=4_000_000_000).tobuf(tarfile.GNU_FORMAT) + bytes(10_240)
    )
    with pytest.raises(ArchiveError, match="a header claims 4,000,000,"):
        extract(path, tmp_path / "out")


def test_one_damaged_file_of_a_zip_is_skipped(tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("cat/1.jpg", b"the bytes of the first")
        file.writestr("cat/2.jpg", b"the bytes of the second")
    archive.write_bytes(archive.read_bytes().replace(b"the bytes of the first", b"the bytes of the WORST"))
    skipped = extract(archive, tmp_path / "out")
    assert [(entry.name, entry.is_damaged) for entry in skipped] == [("cat/1.jpg", True)]
    assert files_below(tmp_path / "out") == {"cat/2.jpg": b"the bytes of the second"}


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_half_a_tar_is_an_error(tmp_path: Path, compression: str) -> None:
    files = {f"cat/{number}.jpg": bytes(range(256)) * (number + 40) for number in range(20)}
    archive = pack_tar(tmp_path, files, compression)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    assert is_archive(archive)
    with pytest.raises(ArchiveError, match=r"can't be read as a zip or tar .* fetch it again"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_half_a_zip_is_an_error(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path, {"cat/1.jpg": bytes(range(256)) * 10})
    archive.write_bytes(archive.read_bytes()[:200])
    assert is_archive(archive)
    with pytest.raises(ArchiveError, match="can't be read as a zip or tar"):
        extract(archive, tmp_path / "out")


def test_a_tar_damaged_in_the_middle_is_an_error(tmp_path: Path) -> None:
    archive = pack_tar(tmp_path, {"cat/1.jpg": b"1", "cat/2.jpg": b"2"})
    data = bytearray(archive.read_bytes())
    data[1024:1124] = b"\xff" * 100
    archive.write_bytes(data)
    with pytest.raises(ArchiveError, match="a damaged header in the middle"):
        extract(archive, tmp_path / "out")


def test_an_encrypted_zip_is_an_error(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path, {"cat/1.jpg": b"secret"})
    data = bytearray(archive.read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(start) + offset] |= 1
    archive.write_bytes(data)
    with pytest.raises(ArchiveError, match="is encrypted"):
        extract(archive, tmp_path / "out")


@pytest.mark.parametrize("name", ["cat/1.jpg", "a..b/c", "café/ß.jpg", "..."])
def test_ordinary_names_are_safe(name: str) -> None:
    assert unsafe_name(name) == ""


class TestUnpackTar:
    def test_files_and_empty_folders_are_unpacked(self, tmp_path: Path) -> None:
        folders = [member("./new", tarfile.DIRTYPE), member("empty", tarfile.DIRTYPE)]
        archive = pack_members(tmp_path / "a.tar.gz", *folders, member("new/deep/file", size=3))
        unpack_tar(archive, tmp_path / "out")
        assert (tmp_path / "out" / "new" / "deep" / "file").read_bytes() == b"xxx"
        assert (tmp_path / "out" / "empty").is_dir()
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["empty", "new"]

    def test_files_of_the_same_name_are_replaced_and_others_stay(self, tmp_path: Path) -> None:
        (tmp_path / "out" / "a").mkdir(parents=True)
        for name in ("a/old", "a/other"):
            (tmp_path / "out" / name).write_bytes(b"before")
        members = [member("a/old", size=2), member("a/old", size=1)]  # of two equal names, the last counts
        unpack_tar(pack_members(tmp_path / "a.tar.gz", *members), tmp_path / "out")
        assert files_below(tmp_path / "out") == {"a/old": b"x", "a/other": b"before"}

    @pytest.mark.parametrize(
        "bad",
        [
            member("../outside"),
            member("/outside"),
            member("../folder", tarfile.DIRTYPE),
            member("outside", tarfile.SYMTYPE, link="/etc/passwd"),
            member("outside", tarfile.LNKTYPE, link="good"),
            member("outside", tarfile.CHRTYPE),
        ],
    )
    def test_one_unsafe_entry_refuses_the_whole_archive(self, tmp_path: Path, bad: tarfile.TarInfo) -> None:
        archive = pack_members(tmp_path / "a.tar.gz", member("good", size=3), bad, member("more", size=3))
        with pytest.raises(ArchiveError, match=r"a\.tar\.gz: entry '.*' is refused: "):
            unpack_tar(archive, tmp_path / "out")
        assert list(tmp_path.rglob("*")) == [archive, tmp_path / "out"]

    def test_a_link_that_is_in_the_folder_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "code").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ArchiveError, match="is a link"):
            unpack_tar(pack_members(tmp_path / "a.tar.gz", member("code/file", size=1)), tmp_path / "out")
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_the_limit_leaves_nothing(self, tmp_path: Path) -> None:
        archive = pack_members(tmp_path / "a.tar.gz", member("a", size=3), member("b", size=3))
        with pytest.raises(ArchiveTooLargeError):
            unpack_tar(archive, tmp_path / "out", max_bytes=5)
        assert list((tmp_path / "out").iterdir()) == []
        unpack_tar(archive, tmp_path / "out", max_bytes=6)

    @pytest.mark.parametrize("data", [b"", b"no archive at all", bytes.fromhex("1f8b0800") + b"damaged"])
    def test_a_file_that_is_no_tar_is_an_error(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "model.tar.gz").write_bytes(data)
        with pytest.raises(ArchiveError, match="can't be read as a zip or tar"):
            unpack_tar(tmp_path / "model.tar.gz", tmp_path / "out")

    def test_a_missing_file_is_an_os_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            unpack_tar(tmp_path / "none.tar.gz", tmp_path / "out")
