"""The ``--help`` of every command: its examples are commands that its own parser accepts."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
_PARSERS = ("ArgumentParser(", "create_parser(")
COMMANDS = sorted(
    path.stem for path in SCRIPTS.glob("*.py") if any(parser in path.read_text(encoding="utf-8") for parser in _PARSERS)
)
_SECTION = re.compile(r"^Examples?:\n((?:  .*\n)+)", re.MULTILINE)
_PROGRAM = re.compile(r"^(?:\.venv/bin/python )?(?:scripts|local_test)/\w+\.(?:py|sh)\b")


def load(command: str) -> ModuleType:
    """Import a command without running it."""
    specification = importlib.util.spec_from_file_location(f"command_{command}", SCRIPTS / f"{command}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def examples_in(text: str) -> list[str]:
    """Return the example commands of a help text, with continued lines joined."""
    section = _SECTION.search(text)
    return section[1].replace("\\\n", " ").splitlines() if section else []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_parse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = load(command)
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0
    examples = examples_in(capsys.readouterr().out)
    assert examples, f"{command} --help has no examples"
    for example in examples:
        program = _PROGRAM.match(example.strip())
        assert program is not None, example
        module._parse(shlex.split(example.strip()[program.end() :]))


def test_all_commands_are_covered() -> None:
    assert {"train", "deploy", "predict", "batch_transform", "teardown", "tune", "prepare_data"} <= set(COMMANDS)
