"""Contents of the report's sections, from hand-written output files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from classifier.contract.findings import Diagnosis, Finding, write_findings
from classifier.errors import ConfigError
from classifier.reporting import sections
from classifier.reporting.summary import OutputFolder, Summary

SUMMARY = Summary(
    model="resnet18",
    pretrained="none",
    channels=("train", "pretrained"),
    classes=("a", "b"),
    photos={"train": (8, 8), "validation": (40, 60)},
    hyperparameters={"epochs": 5, "lr": 0.5, "debug": True},
    changed=("lr", "debug"),
    num_epochs=5,
    best_epoch=5,
    metrics={"validation:accuracy": 0.8},
)


def folder_of(path: Path, **changes: Any) -> OutputFolder:
    SUMMARY.model_copy(update=changes).write(path / "training.json")
    return OutputFolder(path)


FALLING = (0.9, 0.7, 0.5)


def write_losses(folder: OutputFolder, losses: Sequence[float]) -> None:
    rows = "".join(f"{number},{loss}\n" for number, loss in enumerate(losses, start=1))
    (folder.path / "history.csv").write_text(f"epoch,validation:loss\n{rows}", encoding="utf-8")


def titles(folder: OutputFolder) -> list[str]:
    return [notice["title"] for notice in sections.notices(folder)]


@pytest.mark.parametrize("subfolder", ["", "output/data", "data"])
def test_output_is_found_in_a_jobs_folder(tmp_path: Path, subfolder: str) -> None:
    folder_of(tmp_path / subfolder)
    assert OutputFolder.find(tmp_path).path == tmp_path / subfolder


def test_folder_without_output_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"contains neither training\.json nor history\.csv"):
        OutputFolder.find(tmp_path)


def test_wilson_interval() -> None:
    assert sections.wilson_interval(0.8, 100) == pytest.approx((0.7112, 0.8666), abs=1e-4)
    assert sections.wilson_interval(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_accuracy_has_the_interval_of_the_photos_it_was_measured_on(tmp_path: Path) -> None:
    result = sections.result(folder_of(tmp_path))
    assert result is not None
    assert (result["accuracy"], result["num_judged"]) == (0.8, 100)
    assert result["interval"] == sections.wilson_interval(0.8, 100)


def test_hints_follow_warnings(tmp_path: Path) -> None:
    (tmp_path / "bad_images.csv").write_text("channel,path,reason\ntrain,a/1.jpg,truncated\n", encoding="utf-8")
    folder = folder_of(tmp_path)
    write_losses(folder, FALLING)
    assert titles(folder) == [
        "Unreadable photos were left out",
        "There is no test channel",
        "The last epoch was the best",
    ]


@pytest.mark.parametrize("losses", [(0.9, 0.5, 0.5), (0.5, 0.498, 0.496), (0.2, 0.08, 0.06), (0.5, 0.4)])
def test_more_epochs_are_proposed_only_while_they_help(tmp_path: Path, losses: tuple[float, ...]) -> None:
    folder = folder_of(tmp_path, judged_on="test")
    write_losses(folder, losses)
    assert titles(folder) == []


FAULT = Diagnosis(
    cause="lr too high", title="The learning rate is too high", evidence=("steps are large",), advice="a smaller lr"
)


def write_diagnosis(folder: OutputFolder, diagnosis: Diagnosis) -> None:
    content = {"diagnosis": diagnosis.model_dump()}
    (folder.path / "debugger.json").write_text(json.dumps(content), encoding="utf-8")


def test_one_diagnosis_stands_for_all_rules_of_the_debugger(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, judged_on="test")
    write_losses(folder, FALLING)
    fired = [Finding(rule=name, outcome="fired", seen="x") for name in ("LossNotDecreasing", "ExplodingTensor")]
    write_findings(tmp_path / "debugger_findings.json", fired)
    write_diagnosis(folder, FAULT)
    assert titles(folder) == ["The learning rate is too high"]
    section = sections.debugger(folder)
    assert section is not None
    assert section["diagnosis"] == FAULT


def test_leak_is_shown_once(tmp_path: Path) -> None:
    rows = "channel,path,also_in_channel,also_in_path\nvalidation,a/1.jpg,train,a/1.jpg\n"
    (tmp_path / "leaks.csv").write_text(rows, encoding="utf-8")
    folder = folder_of(tmp_path, judged_on="test")
    assert titles(folder) == ["Photos are in two channels"]
    write_diagnosis(folder, FAULT.model_copy(update={"cause": "leak", "title": "leak"}))
    assert titles(folder) == ["Leak"]


def test_photos_in_two_classes_are_a_notice_and_a_table(tmp_path: Path) -> None:
    rows = "".join(f"1,train,{name}/1.jpg,{name}\n" for name in ("a", "b"))
    (tmp_path / "conflicts.csv").write_text(f"group,channel,path,class\n{rows}", encoding="utf-8")
    folder = folder_of(tmp_path)
    assert titles(folder)[0] == "Photos are in two classes"
    section = sections.data(folder)
    assert section is not None
    assert [row["path"] for row in section["conflicts"]] == ["a/1.jpg", "b/1.jpg"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"best_epoch": 4, "judged_on": "test"}, []),
        ({"judged_on": "test"}, ["The last epoch was the best"]),
        ({"judged_on": "test", "ended": "by SIGTERM"}, ["Training ended before its last epoch"]),
        ({"best_epoch": None}, ["No epoch was completed"]),
        ({"ended": "by SIGTERM", "judged_on": "test"}, ["Training ended before its last epoch"]),
    ],
)
def test_notices_about_the_training(tmp_path: Path, changes: dict[str, Any], expected: list[str]) -> None:
    folder = folder_of(tmp_path, **changes)
    write_losses(folder, FALLING)
    assert titles(folder) == expected


def test_command_repeats_the_changed_hyperparameters(tmp_path: Path) -> None:
    section = sections.reproduction(folder_of(tmp_path))
    assert section is not None
    words = section["command"].replace("\\\n", " ").split()
    assert words == [
        "local_test/train_local.sh",
        "--data",
        "PHOTOS",
        "--channel",
        "pretrained=FOLDER",
        "lr=0.5",
        "debug=true",
    ]


def test_thumbnails_are_read_from_their_folder_only(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "mistakes").mkdir()
    (tmp_path / "mistakes" / "01.jpg").write_bytes(b"photo")
    photos = [{"right": False, "thumbnail": name} for name in ("mistakes/01.jpg", "../secret.jpg", "secret.jpg", None)]
    content = {"channel": "test", "num_photos": 9, "num_wrong": 4, "photos": photos}
    (tmp_path / "mistakes.json").write_text(json.dumps(content), encoding="utf-8")
    section = sections.photos(OutputFolder(tmp_path))
    assert section is not None
    assert [photo["source"] for photo in section["wrong"]] == ["data:image/jpeg;base64,cGhvdG8=", None, None, None]
    assert section["right"] == []


def test_missing_files_are_missing_sections(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    names = ("result", "curves", "confusion", "classes", "photos", "data", "debugger", "profiler", "engines")
    assert [getattr(sections, name)(folder) for name in names] == [None] * len(names)
    assert sections.notices(folder) == []
