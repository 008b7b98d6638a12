"""Generation of the README's table of hyperparameters."""

import re
from pathlib import Path

from classifier.contract.hyperparameters import describe

README = Path(__file__).resolve().parent.parent / "README.md"
TABLE = re.compile(r"(?<=<!-- hyperparameters -->\n).*?(?=<!-- /hyperparameters -->)", re.DOTALL)

if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(TABLE.sub(lambda _: describe() + "\n", text), encoding="utf-8")
