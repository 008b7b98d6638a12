"""The HTML report of a training, in a real browser and rebuilt from its files."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from classifier.reporting.__main__ import main
from support.browser import Browser
from support.drawing import write_classes
from support.jobs import Job, run_shared

MARKUP = "<script>alert(1)</script>".replace("/", "∕")  # a folder name cannot contain a slash


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A short training, with markup in the name of a class and an unreadable photo."""
    folder = tmp_path_factory.mktemp("report")
    channels = {name: folder / name for name in ("train", "test")}
    for seed, channel in enumerate(channels.values()):
        write_classes(channel, seed=seed)
        (channel / "disc").rename(channel / MARKUP)
    (channels["train"] / "cross" / "none.jpg").write_bytes(b"no photo")
    job = run_shared(folder / "opt_ml", channels, epochs="2", max_bad_images="0.5")
    assert job.exit_code == 0, job.log
    assert "warning: report" not in job.log
    return job


def test_page_opens_without_errors_and_network_requests(job: Job, browser: Browser) -> None:
    page = job.paths.output_data / "report.html"
    for width, dark in ((1000, False), (390, True)):
        browser.open(page.as_uri(), width=width, dark=dark)
        browser.wait_for(
            "document.querySelectorAll('.chart').length === document.querySelectorAll('.js-plotly-plot').length"
        )
        assert browser.complaints == []
        assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sections = browser.evaluate("[...document.querySelectorAll('main section')].map(one => one.id)")
    assert set(sections) >= {
        "first",
        "curves",
        "confusion",
        "classes",
        "mistakes",
        "photos",
        "hyperparameters",
        "again",
    }
    text = browser.evaluate("document.body.innerText")
    assert MARKUP in text
    assert "Unreadable photos were left out" in text
    assert browser.print().startswith(b"%PDF")
    assert browser.complaints == []


def test_rebuilt_page_has_the_same_bytes(job: Job) -> None:
    page = job.paths.output_data / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert main([str(job.paths.base)]) == 0
    assert page.read_bytes() == before


def test_every_step_is_recorded_and_mistakes_agree_with_the_metrics(job: Job) -> None:
    folder = job.paths.output_data
    with (folder / "steps.csv").open(newline="", encoding="utf-8") as file:
        steps = list(csv.DictReader(file))
    assert [int(row["step"]) for row in steps] == list(range(len(steps)))
    assert {row["epoch"] for row in steps} == {"1", "2"}
    mistakes = json.loads((folder / "mistakes.json").read_text(encoding="utf-8"))
    share_right = 1 - mistakes["num_wrong"] / mistakes["num_photos"]
    assert share_right == pytest.approx(job.metrics["test:accuracy"])
    for photo in mistakes["photos"]:
        assert photo["path"].startswith(f"{photo['true']}/")
        assert photo["right"] == (photo["true"] == photo["predicted"])
        assert (folder / photo["thumbnail"]).is_file()


def test_section_of_a_truncated_file_is_left_out(job: Job, browser: Browser, tmp_path: Path) -> None:
    folder = shutil.copytree(job.paths.output_data, tmp_path / "data")
    (folder / "mistakes.json").write_text('{"channel": ', encoding="utf-8")
    (folder / "steps.csv").unlink()
    assert main([str(folder)]) == 0
    browser.open((folder / "report.html").as_uri())
    assert browser.evaluate("document.getElementById('mistakes') === null")
    assert browser.evaluate("document.getElementById('curves') !== null")
    assert "photos: JSONDecodeError" in browser.evaluate("document.body.innerText")
    assert browser.complaints == []


def test_folder_without_a_training_is_a_one_line_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
