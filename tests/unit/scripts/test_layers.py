"""The command line stays at the edge: only the commands and ``launch.cli`` know argparse."""

import ast
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
EDGE = {SCRIPTS / "launch" / "cli.py", *SCRIPTS.glob("*.py")}


def imported_modules(path: Path) -> set[str]:
    """Return the modules that a file imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_only_the_commands_and_launch_cli_import_argparse() -> None:
    inner = [path for path in SCRIPTS.rglob("*.py") if path not in EDGE]
    assert len(inner) > 40
    assert [str(path) for path in inner if "argparse" in imported_modules(path)] == []


def test_only_the_commands_import_launch_cli() -> None:
    inner = [path for path in SCRIPTS.rglob("*.py") if path not in EDGE]
    assert [str(path) for path in inner if "launch.cli" in imported_modules(path)] == []
