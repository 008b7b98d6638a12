"""The prepare_data command: the contents of OUT, and the messages."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from classifier.training.folders import list_channel
from classifier.training.scan import scan_channel
from dataset.output import stage_output
from prepare_data import main
from support.drawing import draw_photo, draw_scene, encode, write_classes
from support.marks import GATE

PREPARE = Path(__file__).resolve().parents[3] / "scripts" / "prepare_data.py"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three classes of eight photos."""
    return write_classes(tmp_path / "photos")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def photos(out: Path) -> list[str]:
    """The paths of the photos, without report and shards."""
    found = (path.relative_to(out) for path in out.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if path.parts[0] not in ("report", "shards"))


def defects(out: Path) -> list[dict[str, str]]:
    with (out / "report" / "defects.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def snapshot(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_class_folders_become_three_splits_and_a_report(
    source: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(source)
    assert main([str(source), str(out)]) == 0
    sizes = Counter(tuple(path.split("/")[:2]) for path in photos(out))
    assert sizes == {
        (split, label): num
        for split, num in (("train", 6), ("validation", 1), ("test", 1))
        for label in ("cross", "disc", "square")
    }
    assert snapshot(source) == before
    output = capsys.readouterr().out
    assert "class               train  validation  test  left out\n" in output
    assert output.endswith(f"next: local_test/train_local.sh --data {out}\n")
    assert defects(out) == []
    assert json.loads((out / "report" / "prepared.json").read_text())["photos"] == {
        "train": 18,
        "validation": 3,
        "test": 3,
    }
    with Image.open(out / "report" / "samples.jpg") as sheet:
        assert sheet.width > 600
    assert not out.with_name("out.part").exists()


def test_the_same_command_gives_the_same_photos(source: Path, tmp_path: Path) -> None:
    main([str(source), str(tmp_path / "a"), "--jobs", "1"])
    main([str(source), str(tmp_path / "b"), "--jobs", "2"])
    assert photos(tmp_path / "a") == photos(tmp_path / "b")


def test_several_processes_give_the_same_result_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_classes(tmp_path / "photos", photos_per_class=60)
    (source / "disc" / "7.jpg").write_bytes(b"")
    assert main([str(source), str(tmp_path / "one"), "--jobs", "1"]) == 0
    first = capsys.readouterr().out
    assert main([str(source), str(tmp_path / "two"), "--jobs", "2"]) == 0
    assert capsys.readouterr().out.replace(str(tmp_path / "two"), str(tmp_path / "one")) == first
    assert photos(tmp_path / "one") == photos(tmp_path / "two")


def test_every_kind_of_defect_is_reported_with_its_outcome(source: Path, out: Path) -> None:
    good = encode(draw_photo(seed=99))
    planted = {
        "disc/truncated.jpg": good[:-2000],
        "disc/page.jpg": b"<html>",
        "disc/tiny.jpg": encode(draw_photo(12, 12)),
        "disc/really.png": encode(draw_photo(seed=5)),
        "disc/same.jpg": (source / "cross" / "3.jpg").read_bytes(),
        "square/again.jpg": (source / "square" / "1.jpg").read_bytes(),
        "stray.jpg": good,
    }
    for path, data in planted.items():
        (source / path).write_bytes(data)
    assert main([str(source), str(out)]) == 0
    assert [(row["defect"], row["done"], row["path"]) for row in defects(out)] == [
        ("truncated", "left out", "disc/truncated.jpg"),
        ("not-image", "left out", "disc/page.jpg"),
        ("extension", "repaired", "disc/really.png"),
        ("tiny", "left out", "disc/tiny.jpg"),
        ("conflict", "left out", "cross/3.jpg"),
        ("conflict", "left out", "disc/same.jpg"),
        ("repeat", "left out", "square/again.jpg"),
        ("misplaced", "left out", "stray.jpg"),
    ]
    names = {Path(path).name for path in photos(out)}
    assert "really.jpg" in names
    assert not names & {"again.jpg", "truncated.jpg", "page.jpg", "tiny.jpg", "same.jpg", "really.png"}


def test_a_repaired_extension_never_replaces_another_photo(source: Path, out: Path) -> None:
    (source / "disc" / "1.png").write_bytes(encode(draw_photo(seed=5)))
    (source / "disc" / "1.JPG").write_bytes(encode(draw_photo(seed=6)))
    main([str(source), str(out), "--validation", "0", "--test", "0"])
    names = {Path(path).name for path in photos(out) if "/disc/" in path}
    assert names == {*(f"{number}.jpg" for number in (0, 2, 3, 4, 5, 6, 7)), "1.JPG", "1-2.jpg", "1-3.jpg"}


def test_names_that_differ_only_in_case_do_not_collide(source: Path, out: Path) -> None:
    for number, path in enumerate(("disc/a/photo.jpg", "disc/b/PHOTO.jpg")):
        (source / path).parent.mkdir()
        (source / path).write_bytes(encode(draw_photo(seed=90 + number)))
    main([str(source), str(out), "--validation", "0", "--test", "0"])
    names = {Path(path).name for path in photos(out)}
    assert {"photo.jpg", "PHOTO-2.jpg"} <= names
    assert "PHOTO.jpg" not in names


def test_a_csv_and_its_images(source: Path, out: Path, tmp_path: Path) -> None:
    rows = [f"{path.relative_to(source)},{path.parent.name}\n" for path in sorted(source.rglob("*.jpg"))]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(rows) + "none.jpg,disc\n")
    assert main([str(tmp_path / "labels.csv"), str(out), "--images", str(source)]) == 0
    assert len(photos(out)) == 24
    assert [(row["defect"], row["path"]) for row in defects(out)] == [("missing", "none.jpg")]


def pack(source: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for photo in sorted(source.rglob("*.jpg")):
            file.write(photo, photo.relative_to(source))
    return path


def test_damaged_and_unsafe_entries_of_a_zip_are_defects(source: Path, out: Path, tmp_path: Path) -> None:
    archive = pack(source, tmp_path / "photos.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("disc/damaged.jpg", b"the bytes of a photo")
        file.writestr("../escape.jpg", b"x")
        file.writestr("__MACOSX/disc/._1.jpg", b"the bytes of a photo")  # damaged junk is no defect
    archive.write_bytes(archive.read_bytes().replace(b"the bytes of a photo", b"the bytes of a PHOTO"))
    assert main([str(archive), str(out)]) == 0
    assert [(row["defect"], row["path"]) for row in defects(out)] == [
        ("corrupt", "disc/damaged.jpg"),
        ("unsafe", "../escape.jpg"),
    ]
    assert len(photos(out)) == 24


def test_an_archive_larger_than_max_size_is_an_error(
    source: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = pack(source, tmp_path / "photos.zip")
    assert main([str(archive), str(out), "--max-size", "1kB"]) == 1
    assert re.fullmatch(
        r"prepare_data: photos\.zip claims [\d,]+ bytes, more than the limit of 1,000; "
        r"raise --max-size if you trust the archive\n",
        capsys.readouterr().err,
    )


def test_shards_hold_the_photos_of_the_class_folders_in_the_same_order(source: Path, out: Path) -> None:
    (source / "disc" / "photo.data").write_bytes((source / "disc" / "0.jpg").read_bytes() + b"\0")
    main([str(source), str(out), "--shards", "10", "--on", "extension=keep"])
    assert sorted(path.relative_to(out / "shards").as_posix() for path in (out / "shards").rglob("*.*")) == [
        "test/classes.txt",
        "test/test-000000.tar",
        "train/classes.txt",
        "train/train-000000.tar",
        "train/train-000001.tar",
        "validation/classes.txt",
        "validation/validation-000000.tar",
    ]
    with ThreadPoolExecutor(1) as executor:
        for split in ("train", "validation", "test"):
            channels = [list_channel(split, root / split) for root in (out, out / "shards")]
            folders, shards = (scan_channel(channel, executor, lambda: None) for channel in channels)
            assert (shards.classes, shards.bad, shards.unexpected_files) == (folders.classes, [], [])
            assert [(item.label, item.read()) for item in shards.samples] == [
                (item.label, item.read()) for item in folders.samples
            ]


def test_shards_are_the_same_bytes_each_time(source: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        main([str(source), str(tmp_path / name), "--shards", "10"])
    for shard in (tmp_path / "first" / "shards").rglob("*.tar"):
        assert shard.read_bytes() == (tmp_path / "second" / shard.relative_to(tmp_path / "first")).read_bytes()


def test_links_share_space_and_scaled_photos_do_not(source: Path, tmp_path: Path) -> None:
    main([str(source), str(tmp_path / "linked"), "--link"])
    assert all((tmp_path / "linked" / path).stat().st_nlink == 2 for path in photos(tmp_path / "linked"))
    before = snapshot(source)
    main([str(source), str(tmp_path / "small"), "--link", "--longer-side", "28"])
    with Image.open(tmp_path / "small" / photos(tmp_path / "small")[0]) as image:
        assert max(image.size) == 28
    assert snapshot(source) == before


def test_capped_photos_are_no_defects(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(source), str(out), "--max-per-class", "5"])
    assert len(photos(out)) == 15
    assert defects(out) == []
    assert "9 good photos are left out by --max-per-class or --balance" in capsys.readouterr().out


def test_a_class_missing_in_a_split_is_a_warning(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_classes(tmp_path / "photos" / "train")
    write_classes(tmp_path / "photos" / "test", classes=("disc", "cross"), seed=1)
    main([str(tmp_path / "photos"), str(out)])
    assert "warning: test has no photo of 'square', and training needs the same classes" in capsys.readouterr().out
    assert main([str(tmp_path / "photos"), str(tmp_path / "again"), "--resplit"]) == 0
    assert len({tuple(path.split("/")[:2]) for path in photos(tmp_path / "again")}) == 9


def test_a_source_without_a_test_split_is_reported(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("train", "val")):
        write_classes(tmp_path / "photos" / name, seed=seed)
    main([str(tmp_path / "photos"), str(out)])
    assert "warning: the source has train and validation but no test: pass --resplit" in capsys.readouterr().out
    main([str(tmp_path / "photos"), str(out), "--replace", "--test", "0"])
    assert "warning" not in capsys.readouterr().out
    main([str(tmp_path / "photos"), str(out), "--replace", "--resplit"])
    assert "warning" not in capsys.readouterr().out
    assert (out / "test").is_dir()


def test_photos_that_look_alike_are_reported_and_left_out_on_request(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "photos"
    for number, place in enumerate(f"{split}/{label}" for split in ("train", "test") for label in ("cat", "dog")):
        (source / place).mkdir(parents=True)
        for copy in range(2):
            (source / place / f"{copy}.jpg").write_bytes(encode(draw_scene(number * 2 + copy)))
    (source / "test" / "dog" / "copy.jpg").write_bytes(encode(draw_scene(0).resize((200, 150)), quality=50))
    assert main([str(source), str(out), "--validation", "0"]) == 0
    sheet = out / "report" / "near_duplicates.jpg"
    line = f"warning: pairs of photos that look alike: 1, in two splits: 1, in two classes: 1; see {sheet}, and leave "
    assert line in capsys.readouterr().out
    with (out / "report" / "near_duplicates.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert [row[name] for name in ("path", "class", "split", "other_path", "other_class", "other_split")] == [
        *("test/dog/copy.jpg", "dog", "test"),
        *("train/cat/0.jpg", "cat", "train"),
    ]
    with Image.open(sheet) as image:
        assert image.width > 300
    assert (len(photos(out)), defects(out)) == (9, [])
    assert main([str(source), str(out), "--replace", "--on", "near-duplicate=drop"]) == 0
    assert [(row["defect"], row["path"]) for row in defects(out)] == [
        ("near-duplicate", "test/dog/copy.jpg"),
        ("near-duplicate", "train/cat/0.jpg"),
    ]
    assert len(photos(out)) == 7


class TestOut:
    def test_a_complete_out_is_replaced_only_on_request(
        self, source: Path, out: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        main([str(source), str(out)])
        assert main([str(source), str(out)]) == 1
        assert capsys.readouterr().err == (
            f"prepare_data: {out} exists already: choose another folder, or pass --replace to write it again\n"
        )
        assert main([str(source), str(out), "--replace", "--test", "0"]) == 0
        assert not (out / "test").exists()

    def test_a_folder_of_other_files_is_never_replaced(self, source: Path, out: Path) -> None:
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")
        assert main([str(source), str(out), "--replace"]) == 1
        assert (out / "thesis.txt").read_text() == "years of work"

    def test_a_part_folder_of_other_files_is_never_used(self, source: Path, out: Path) -> None:
        part = out.with_name("out.part")
        part.mkdir()
        (part / "thesis.txt").write_text("years of work")
        assert main([str(source), str(out)]) == 1
        assert (part / "thesis.txt").read_text() == "years of work"

    @pytest.mark.parametrize("inner", ["photos/out", "photos", "."])
    def test_out_and_source_must_not_contain_each_other(self, source: Path, inner: str, tmp_path: Path) -> None:
        before = snapshot(source)
        assert main([str(source), str(tmp_path / inner)]) == 1
        assert snapshot(tmp_path) == before

    def test_a_failed_run_leaves_no_out_and_the_next_one_succeeds(self, source: Path, out: Path) -> None:
        (source / "lonely").mkdir()
        (source / "lonely" / "1.jpg").write_bytes(encode(draw_photo()))
        assert main([str(source), str(out)]) == 1
        assert not out.exists()
        assert not out.with_name("out.part").exists()
        assert main([str(source), str(out), "--min-per-class", "3"]) == 0
        assert {path.split("/")[1] for path in photos(out)} == {"cross", "disc", "square"}

    def test_a_second_run_at_the_same_time_is_refused(
        self, source: Path, out: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with stage_output(out, replace=False) as part:
            (part / "train").mkdir()
            assert main([str(source), str(out)]) == 1
            assert capsys.readouterr().err == (f"prepare_data: another run is writing {out}: wait for it to finish\n")
        assert (out / "train").is_dir()

    def test_a_failed_run_keeps_its_downloads_for_the_next_one(self, out: Path) -> None:
        def fail() -> None:
            with stage_output(out, replace=False) as part:
                (part / "download").mkdir()
                (part / "download" / "photos.zip.part").write_bytes(b"half")
                (part / "staging").mkdir()
                raise OSError("no space left on device")

        with pytest.raises(OSError, match="no space"):
            fail()
        with stage_output(out, replace=False) as part:
            assert (part / "download" / "photos.zip.part").read_bytes() == b"half"
            assert not (part / "staging").exists()
        assert list(out.iterdir()) == []

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), pytest.param(signal.SIGINT, 130, marks=GATE)])
    def test_a_stopped_run_leaves_no_out_and_the_next_one_succeeds(
        self, tmp_path: Path, out: Path, number: signal.Signals, code: int
    ) -> None:
        source = write_classes(tmp_path / "photos", photos_per_class=200)
        command = [sys.executable, str(PREPARE), str(source), str(out), "--jobs", "2"]
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
        while not list(out.with_name("out.part").glob("staging/*/*")):
            time.sleep(0.01)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code
        assert len(errors.splitlines()) == (code == 130)
        assert not out.exists()
        assert main([str(source), str(out), "--jobs", "1", "--on", "repeat=keep"]) == 0
        assert len(photos(out)) == 600
        assert not out.with_name("out.part").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on", "leek=keep"], "unknown defect"),
        (["--validation", "0.5", "--test", "0.5"], "must add up to less than 1"),
        (["--labels", "none.json"], "No such file"),
        (["--sha256", "00"], "--sha256 is only for a URL"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(
    source: Path, out: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(source), str(out), *arguments]) == 1
    output = capsys.readouterr().err
    assert re.search(message, output)
    assert len(output.splitlines()) == 1
