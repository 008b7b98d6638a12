"""What README.md says about the code."""

import re

from classifier.contract.hyperparameters import describe
from support.readme import README, ROOT

TEXT = README.read_text(encoding="utf-8")


def test_table_of_hyperparameters_is_the_one_that_train_prints() -> None:
    table = re.search(r"<!-- hyperparameters -->\n(.*)\n<!-- /hyperparameters -->", TEXT, re.DOTALL)
    assert table is not None
    assert table[1] == describe(), "run `make readme`"


def test_every_linked_file_exists() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    assert [target for target in targets if not (ROOT / target).exists()] == []
