"""Generation of the README's tables of hyperparameters and of server settings."""

import re
from pathlib import Path

from classifier.contract import hyperparameters
from classifier.serving import settings

README = Path(__file__).resolve().parent.parent / "README.md"
TABLES = {"hyperparameters": hyperparameters.describe, "settings": settings.describe}


def with_tables(text: str) -> str:
    """Return the README with what stands between ``<!-- name -->`` and ``<!-- /name -->`` generated anew."""
    for name, describe in TABLES.items():
        pattern = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
        table = describe().replace("\\", r"\\")
        text = pattern.sub(table + "\n", text)
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
