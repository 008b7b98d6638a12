"""What README.md says about the code."""

import re

import pytest

from classifier.contract import hyperparameters
from classifier.serving import settings
from support.readme import README, ROOT

TEXT = README.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "expected"), [("hyperparameters", hyperparameters.describe()), ("settings", settings.describe())]
)
def test_tables_are_generated_from_the_code(name: str, expected: str) -> None:
    table = re.search(rf"<!-- {name} -->\n(.*)\n<!-- /{name} -->", TEXT, re.DOTALL)
    assert table is not None
    assert table[1] == expected, "run `make readme`"


def test_every_linked_file_exists() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    assert [target for target in targets if not (ROOT / target).exists()] == []
