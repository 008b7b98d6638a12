"""What the README says is so."""

import re
from pathlib import Path

from classifier.contract.hyperparameters import describe

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_table_of_hyperparameters_is_the_one_that_train_prints() -> None:
    copy = re.search(r"<!-- hyperparameters -->\n(.*)\n<!-- /hyperparameters -->", README, re.DOTALL)
    assert copy is not None
    assert copy[1] == describe(), "run `make readme`"


def test_every_file_that_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (Path(__file__).resolve().parent.parent / target).exists(), target
