"""Channels of tar shards: labels, order, damage, and what is not a photo."""

import io
import pickle
import tarfile
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path

import pytest

from classifier.errors import DataError
from classifier.training.duplicates import fingerprint
from classifier.training.folders import list_channel
from classifier.training.scan import ScanResult, Share, check_bad_share, merge_shares, scan_channel, scan_share
from support.drawing import draw_photo, encode, write_classes

PHOTO, OTHER = encode(draw_photo(40, 30)), encode(draw_photo(40, 30, shape="cross"))


def write_shard(path: Path, entries: Mapping[str, bytes | str], format: int = tarfile.DEFAULT_FORMAT) -> Path:
    """Write a tar; an entry of text is a link to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A channel that has ``classes.txt`` with three classes, and no shard yet."""
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "classes.txt").write_text("square\ncross\ndisc\n", encoding="utf-8")
    return folder


def scan(root: Path, executor: Executor) -> ScanResult:
    return scan_channel(list_channel("train", root), executor, lambda: None)


def labels_of(result: ScanResult) -> dict[str, str]:
    return {sample.name: result.classes[sample.label] for sample in result.samples}


def test_labels_are_lines_of_the_class_list_or_names(root: Path, executor: Executor) -> None:
    write_shard(
        root / "a.tar",
        {
            "7.jpg": PHOTO,
            "7.cls": b"0",
            "8.cls": b"disc\n",
            "8.jpg": OTHER,
            "9.PNG": encode(draw_photo(), "PNG"),
            "9.cls": b"1",
        },
    )
    result = scan(root, executor)
    assert result.classes == ("cross", "disc", "square")
    assert labels_of(result) == {"a.tar/9.PNG": "cross", "a.tar/8.jpg": "disc", "a.tar/7.jpg": "square"}
    assert [sample.read() for sample in result.samples][1:] == [OTHER, PHOTO]
    assert (result.bad, result.unexpected_files) == ([], [])


def test_without_label_files_folders_are_classes(root: Path, executor: Executor) -> None:
    entries = {"./disc/my.photo.jpg": PHOTO, "./disc/my.other.jpg": OTHER, "./cross/deep/1.jpg": OTHER}
    write_shard(root / "a.tar", entries)
    assert labels_of(scan(root, executor)) == {
        "a.tar/cross/deep/1.jpg": "cross",
        "a.tar/disc/my.other.jpg": "disc",
        "a.tar/disc/my.photo.jpg": "disc",
    }


def test_further_parts_of_a_sample_are_not_photos(root: Path, executor: Executor) -> None:
    write_shard(root / "a.tar", {"1.cls": b"2", "1.jpg": PHOTO, "1.mask.png": PHOTO, "1.json": b"{}", "._1.jpg": b"x"})
    result = scan(root, executor)
    assert (list(labels_of(result)), result.bad) == (["a.tar/1.jpg"], [])


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_formats_of_tar_are_read(root: Path, executor: Executor, format: int) -> None:
    name = f"{'ä' * 40}/{'x' * 60}.jpg" if format == tarfile.USTAR_FORMAT else f"{'ä' * 60}/{'x' * 200}.jpg"
    (root / "classes.txt").write_text(f"{name.partition('/')[0]}\nother\n", encoding="utf-8")
    write_shard(root / "a.tar", {name: PHOTO, "other/1.jpg": OTHER}, format=format)
    assert list(labels_of(scan(root, executor))) == ["a.tar/other/1.jpg", f"a.tar/{name}"]


def test_the_photos_do_not_depend_on_their_division_into_shards(tmp_path: Path, executor: Executor) -> None:
    folders = write_classes(tmp_path / "folders")
    files = sorted(folders.rglob("*.jpg"), key=lambda path: path.name)  # not in the order of class folders
    results = [scan(folders, executor)]
    for size in (5, 24):
        root = tmp_path / str(size)
        for start in range(0, 24, size):
            entries = {path.relative_to(folders).as_posix(): path.read_bytes() for path in files[start : start + size]}
            write_shard(root / f"{start:02}.tar", entries)
        (root / "classes.txt").write_text("cross\ndisc\nsquare\n", encoding="utf-8")
        results.append(scan(root, executor))
    photos = [[(item.label, item.digest, item.read()) for item in result.samples] for result in results]
    assert photos[0] == photos[1] == photos[2]
    assert len({fingerprint([result]) for result in results}) == 1


IS_UNKNOWN = "is none of the 3 classes of classes.txt"
BAD = {
    "a photo that is none": ({"1.jpg": b"<html>", "1.cls": b"0"}, "not an image: 6 bytes that begin with b'<html>'"),
    "no label": ({"1.jpg": OTHER}, "no label: its key has no .cls file, and its folder is no class of classes.txt"),
    "a label beyond the list": ({"1.jpg": OTHER, "1.cls": b"3"}, f"the label '3' {IS_UNKNOWN}"),
    "a name that is no class": ({"1.jpg": OTHER, "1.cls": b"hat"}, f"the label 'hat' {IS_UNKNOWN}"),
    "a link": ({"1.jpg": "/etc/passwd", "1.cls": b"0"}, "a link, not a file"),
    "an absolute name": ({"/disc/1.jpg": OTHER}, "an absolute path"),
    "a name that leads out": ({"disc/../../1.jpg": OTHER}, "a path that leads out of the folder"),
    "two photos": ({"1.jpg": PHOTO, "1.png": OTHER, "1.cls": b"0"}, "a second photo of this key"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_entries_that_are_no_photos_count_as_bad(root: Path, executor: Executor, case: str) -> None:
    entries, reason = BAD[case]
    write_shard(root / "a.tar", {"0.jpg": PHOTO, "0.cls": b"0", **entries})
    result = scan(root, executor)
    (bad,) = result.bad
    assert bad.name in [f"a.tar/{name}" for name in entries]
    assert bad.reason == reason
    with pytest.raises(DataError, match="photos can't be read, and max_bad_images"):
        check_bad_share(result, 0.1, Path("listing.csv"))


DAMAGE = {
    "cut within an entry": lambda data: data[: 3 * 512 + len(PHOTO)],
    "cut between entries": lambda data: data[: data.index(b"2.jpg")],
    "a damaged header": lambda data: data.replace(b"2.jpg", b"2.jpX", 1),
    "a second tar after its end": lambda data: data + data,
    "no tar": lambda _: b"PK\3\4" + bytes(2000),
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_shard_is_an_error_that_names_it(root: Path, executor: Executor, case: str) -> None:
    whole = write_shard(root / "a.tar", {"1.jpg": PHOTO, "1.cls": b"0", "2.jpg": OTHER, "2.cls": b"1"}).read_bytes()
    (root / "b.tar").write_bytes(DAMAGE[case](whole))
    with pytest.raises(DataError, match=rf"^channel 'train': the shard {root}/b.tar can't be read as a tar \(.*again$"):
        scan(root, executor)


def test_shards_beside_class_folders_are_an_error(root: Path) -> None:
    write_shard(root / "a.tar", {"disc/1.jpg": PHOTO})
    (root / "disc").mkdir()
    with pytest.raises(
        DataError, match=r"holds tar shards \(a.tar, …\) and folders beside them \(disc, …\): keep the "
    ):
        list_channel("train", root)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "holds tar shards but no classes.txt: add one beside them with a class name a line, in the order"),
        ("", "classes.txt is empty: it should hold a class name a line"),
        ("a\n\nb\n", "classes.txt, line 2 is empty: a line should be a class name"),
        ("a\nb\na\n", "classes.txt, line 3 names 'a' a second time: a line should be a class name"),
    ],
)
def test_the_class_list_is_required_and_checked(root: Path, text: str | None, problem: str) -> None:
    write_shard(root / "a.tar", {"a/1.jpg": PHOTO})
    if text is None:
        (root / "classes.txt").unlink()
    else:
        (root / "classes.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        list_channel("train", root)


def test_a_shard_that_shrinks_during_the_job_is_an_error(root: Path, executor: Executor) -> None:
    shard = write_shard(root / "a.tar", {"disc/1.jpg": PHOTO, "disc/2.jpg": OTHER})
    (_, last) = scan(root, executor).samples
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(OSError, match=rf"{shard} ends before byte"):
        last.read()


@pytest.mark.parametrize("kind", ["folders", "shards", "streamed"])
@pytest.mark.parametrize("num_ranks", [2, 4, 7])
def test_shares_of_ranks_make_the_result_of_one(tmp_path: Path, executor: Executor, kind: str, num_ranks: int) -> None:
    folders = write_classes(tmp_path / "folders", photos_per_class=3)
    (folders / "disc" / "1.jpg").write_bytes(b"bad")
    (folders / "disc" / "notes.txt").write_text("no photo", encoding="utf-8")
    (folders / "README.txt").touch()
    root = folders
    if kind != "folders":
        root = tmp_path / "shards"
        files = sorted(folders.rglob("*.jpg"), key=lambda path: path.name)
        for number, start in enumerate(range(0, 9, 2)):
            entries = {path.relative_to(folders).as_posix(): path.read_bytes() for path in files[start : start + 2]}
            write_shard(root / f"{number}.tar", entries)
        (root / "classes.txt").write_text("cross\ndisc\nsquare\n", encoding="utf-8")
    channel = list_channel("train", root, streamed=kind == "streamed")
    whole = scan_channel(channel, executor, lambda: None)
    shares = [scan_share(channel, Share(number, num_ranks), executor, lambda: None) for number in range(num_ranks)]
    merged = merge_shares(channel, pickle.loads(pickle.dumps(shares)))
    assert [(item.name, item.label, item.digest, item.read()) for item in merged.samples] == [
        (item.name, item.label, item.digest, item.read()) for item in whole.samples
    ]
    assert (merged.bad, merged.unexpected_files) == (whole.bad, whole.unexpected_files)
    orders = [result.samples.shard_order for result in (whole, merged)]
    # Without the photo that can't be read.
    starts = [0, 2, 3, 5, 7] if kind == "streamed" else None
    assert [None if one is None else one.starts.tolist() for one in orders] == [starts, starts]
