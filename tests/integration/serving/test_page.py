"""The page for trying a model, in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.browser import Browser, browsing, find_browser
from support.servers import ServerProcess, drawn_photos, running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(opt_ml: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    find_browser()
    with running(opt_ml, tmp_path_factory.mktemp("page") / "log", SERVE_PAGE="1") as server:
        yield server


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Two photos, and a file that is not an image."""
    paths = [tmp_path / "first.jpg", tmp_path / "second.jpg", tmp_path / "none.jpg"]
    for path, data in zip(paths, [*drawn_photos(2), b"no photo"], strict=True):
        path.write_bytes(data)
    return paths


@pytest.mark.parametrize("dark", [False, True])
def test_photos_get_labels_and_bars(browser: Browser, page: ServerProcess, photos: list[Path], dark: bool) -> None:
    browser.open(f"http://127.0.0.1:{page.port}/", dark=dark)
    assert browser.evaluate("document.title") == "squeezenet1_1 – try it"
    browser.choose_files("#file", *photos)
    browser.wait_for(
        "document.querySelectorAll('article').length === 3 && !document.body.innerText.includes('Classifying')"
    )
    newest, second, first = browser.evaluate("[...document.querySelectorAll('article')].map(card => card.innerText)")
    assert newest.split("\n")[0] == "none.jpg"
    assert "not an image: 8 bytes" in newest
    for card, photo, name in [(first, photos[0], "first.jpg"), (second, photos[1], "second.jpg")]:
        answer = page.invoke(photo.read_bytes()).json()
        assert card.startswith(answer["class_name"])
        assert name in card
    widths = browser.evaluate(
        "[...document.querySelectorAll('article:last-child .bar i')].map("
        "bar => parseFloat(getComputedStyle(bar, '::before').width) / bar.clientWidth)"
    )
    expected = [place["probability"] for place in page.invoke(photos[0].read_bytes()).json()["predictions"]]
    assert widths == pytest.approx(expected, abs=0.02)


def test_page_loads_nothing_from_another_host(browser: Browser, page: ServerProcess, photos: list[Path]) -> None:
    browser.open(f"http://127.0.0.1:{page.port}/", width=400)
    browser.choose_files("#file", photos[0])
    browser.wait_for("document.querySelectorAll('article h2').length === 1")
    names = browser.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
    assert all(name.startswith((f"http://127.0.0.1:{page.port}/", "blob:", "data:")) for name in names)
    assert browser.evaluate("document.documentElement.scrollWidth <= 400")
