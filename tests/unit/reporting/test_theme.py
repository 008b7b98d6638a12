"""Theme of the HTML pages: colors, formats, rendering."""

import json
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from classifier.reporting import page, theme

REPORTING = Path(page.__file__).parent
TUNING = Path(__file__).resolve().parents[3] / "scripts" / "launch" / "tuning"


def used_colors() -> set[str]:
    """Names of colors in style sheets, charts and scripts."""
    pages = [REPORTING / "page.css", REPORTING / "page.js", TUNING / "page.html"]
    charts = list((REPORTING / "charts").glob("*.py"))
    names: set[str] = set()
    for pattern, paths in ((r"var\(--(\w+)\)", pages), (r"\b(?:ink|colors)\.(\w+)", pages), (r'"@(\w+)"', charts)):
        for path in paths:
            names.update(re.findall(pattern, path.read_text(encoding="utf-8")))
    return names - {"font", "share"}


def test_every_color_that_pages_use_is_defined() -> None:
    names = used_colors()
    assert {"surface", "accent", "faint", "wrong", "cold", "worst"} <= names
    assert names <= set(theme.PALETTE)


def test_themes_define_the_same_colors_as_hex_values() -> None:
    light, dark = theme.colors("light"), theme.colors("dark")
    assert light.keys() == dark.keys()
    assert all(re.fullmatch(r"#[0-9a-f]{6}", color) for color in (*light.values(), *dark.values()))
    assert light["ground"] != dark["ground"]


def test_style_sheet_has_the_dark_theme_on_screens_only() -> None:
    light, dark = theme.css_variables().split("@media screen and (prefers-color-scheme: dark)")
    assert f"--ground: {theme.colors('light')['ground']}" in light
    assert f"--ground: {theme.colors('dark')['ground']}" in dark


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.04, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (59.4, "59 s"), (60, "1 min 00 s"), (125, "2 min 05 s")),
        *((3599, "1 h 00 min"), (3660, "1 h 01 min"), (90_000, "25 h 00 min")),
    ],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert theme.duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" loss is falling ", "Loss is falling."),
        ("why?", "Why?"),
        ("lr=0.1 is high", "lr=0.1 is high."),
        ("warmup_epochs helps", "warmup_epochs helps."),
        ("", ""),
    ],
)
def test_sentences_begin_with_a_capital_and_end_with_a_mark(text: str, expected: str) -> None:
    assert theme.sentence(text) == expected


def test_numbers_and_percentages() -> None:
    assert (theme.percent(0.1234), theme.percent(0.5, 0)) == ("12.3 %", "50 %")
    assert (theme.number(12_345.6), theme.number(1.25, 2)) == ("12,346", "1.25")


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_text("{{ text }}|{{ data|tojson }}|{{ plotly|length }}|{{ themes|tojson }}", encoding="utf-8")
    return path


def test_content_is_escaped_and_the_page_is_complete(template: Path) -> None:
    text, data, size, themes = theme.render_page(template, text="<b>", data={"a": "</script>"}).split("|")
    assert text == "&lt;b&gt;"
    assert "</script>" not in data
    assert json.loads(data) == {"a": "</script>"}
    assert int(size) > 1_000_000
    assert json.loads(themes)["dark"]["layout"]["hoverlabel"]["bgcolor"] == theme.colors("dark")["surface"]


def test_missing_values_and_nan_are_errors(template: Path) -> None:
    with pytest.raises(UndefinedError):
        theme.render_page(template, data={})
    with pytest.raises(ValueError, match="not JSON compliant"):
        theme.render_page(template, text="", data=float("nan"))
