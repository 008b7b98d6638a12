"""The page's colours, for the light and for the dark; charts name them ``@name``, the style sheet ``var(--name)``."""

PALETTE = {
    "ground": ("#f6f5f2", "#16171a"),
    "manifest": ("#ffffff", "#1f2125"),
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
    "wash": ("#faf1ef", "#2c2122"),
    "cold": ("#3f6ea8", "#6f9fdb"),
    "hot": ("#a3372b", "#e5796b"),
}


def themes() -> dict[str, dict[str, str]]:
    """The colours by theme and name."""
    names = ("light", "dark")
    return {theme: {name: pair[place] for name, pair in PALETTE.items()} for place, theme in enumerate(names)}


def style() -> str:
    """The colours as CSS variables; paper is light."""
    light, dark = ("; ".join(f"--{name}: {value}" for name, value in theme.items()) for theme in themes().values())
    return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
