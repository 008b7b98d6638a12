"""Theme of the HTML pages: colors, plotly layout, template rendering and number formats.

Shared by the report of a training and the tuning page. Charts refer to a color as ``@name``, style sheets as
``var(--name)``. Imports no torch, and jinja2 and plotly only when a page is rendered.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

# Each color in the light and in the dark theme.
PALETTE = {
    "ground": ("#f6f5f2", "#16171a"),
    "surface": ("#ffffff", "#1f2125"),
    "ink": ("#1d1e20", "#ececec"),
    "quiet": ("#64666b", "#a3a6ad"),
    "faint": ("#c9c7c0", "#50545c"),
    "line": ("#e2e0da", "#33363c"),
    "accent": ("#2f6f5e", "#6cc3a8"),
    "second": ("#3f6ea8", "#86b2e8"),
    "third": ("#b0741a", "#e0b060"),
    "fourth": ("#7a5aa6", "#b79be0"),
    "fifth": ("#94644b", "#c99b80"),
    "right": ("#2f6f5e", "#4fa88c"),
    "wrong": ("#a3372b", "#ef9083"),
    "worst": ("#cdb98f", "#675f52"),
    "wash": ("#faf1ef", "#2c2122"),
    "cold": ("#3f6ea8", "#6f9fdb"),
    "hot": ("#a3372b", "#e5796b"),
}
FONT = 'system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif'


def colors(theme: str) -> dict[str, str]:
    """Return the colors of the theme ``light`` or ``dark`` by name."""
    index = ("light", "dark").index(theme)
    return {name: pair[index] for name, pair in PALETTE.items()}


def css_variables() -> str:
    """Return a style sheet that defines the colors and the font as CSS variables. Print always uses the light theme."""
    light, dark = ("; ".join(f"--{name}: {value}" for name, value in colors(theme).items()) for theme in _THEMES)
    return (
        f":root {{ color-scheme: light dark; --font: {FONT}; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    )


def themes() -> dict[str, dict[str, Any]]:
    """Return the colors and the plotly layout of each theme, for a page's script."""
    return {theme: {"colors": colors(theme), "layout": plotly_layout(theme)} for theme in _THEMES}


def plotly_layout(theme: str) -> dict[str, Any]:
    """Return plotly's layout defaults in the colors of a theme."""
    color = colors(theme)
    axis = {
        "gridcolor": color["line"],
        "linecolor": color["line"],
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 12, "color": color["quiet"]}},
        "tickfont": {"size": 11, "color": color["quiet"]},
    }
    return {
        "font": {"family": FONT, "size": 12, "color": color["ink"]},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {
            "bgcolor": color["surface"],
            "bordercolor": color["line"],
            "font": {"family": FONT, "size": 12, "color": color["ink"]},
        },
        "xaxis": axis,
        "yaxis": axis,
    }


_THEMES = ("light", "dark")


def render_page(template: Path, **content: Any) -> str:
    """Render a Jinja template into a page that needs no other file.

    Besides ``content``, which is escaped, the template gets ``style``, ``themes`` and ``plotly`` (plotly.js), and the
    filters ``percent``, ``number``, ``duration`` and ``sentence``.
    """
    from markupsafe import Markup  # noqa: PLC0415
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    page = _environment(template.parent).get_template(template.name)
    return page.render(style=Markup(css_variables()), themes=themes(), plotly=Markup(get_plotlyjs()), **content)


@cache
def _environment(folder: Path) -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    environment.filters.update(percent=percent, number=number, duration=duration, sentence=sentence)
    return environment


def percent(share: float, digits: int = 1) -> str:
    """Format a share in 0–1 as a percentage."""
    return f"{100 * share:.{digits}f} %"


def number(value: float, digits: int = 0) -> str:
    """Format a number with thousands separators."""
    return f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    """Format a duration in seconds with its two largest units, as in ``2 min 05 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{int(seconds // 60)} min {int(seconds % 60):02} s"


def sentence(text: str) -> str:
    """Capitalize a text and end it with a period, unless it begins with a hyperparameter's name or has an end mark."""
    text = text.strip()
    first = text.partition(" ")[0]
    start = text[:1] if "=" in first or "_" in first else text[:1].upper()
    return start + text[1:] + ("" if text.endswith((".", "!", "?", "…")) or not text else ".")
