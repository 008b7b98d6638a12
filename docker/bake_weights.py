"""Download of torchvision's weights into the image: `bake_weights.py FOLDER MODEL…`, run by the Dockerfile.

The folder is torch.hub's cache, where a training finds the files without a network. Needs nothing but Python, so that
the Dockerfile can download them before it installs torch.
"""

import hashlib
import re
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

# A model and the address of its default weights in each line.
TABLE = Path(__file__).with_name("weights.txt")
OFFLINE = "to build without a network, skip the download: docker build --build-arg BAKED_WEIGHTS= …"
TIMEOUT_S = 30


def main(arguments: list[str]) -> int:
    """Download the weights of each model and return the exit code."""
    folder, *names = arguments
    addresses = dict(line.split() for line in TABLE.read_text(encoding="ascii").splitlines())
    unknown = [name for name in names if name not in addresses]
    if unknown:
        print(f"bake_weights: unknown model {unknown[0]!r}; choose from {', '.join(addresses)}", file=sys.stderr)
        return 1
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            fetch(addresses[name], Path(folder))
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            print(f"bake_weights: can't download the weights of {name} ({reason}); {OFFLINE}", file=sys.stderr)
            return 1
    return 0


def fetch(address: str, folder: Path) -> None:
    """Download a file and check it against the beginning of its SHA-256 that its name contains.

    Raises:
        OSError: the address can't be read, or the folder not written.
        HTTPException: the answer is not HTTP, or ends early.
        ValueError: the file's hash is another.
    """
    path = folder / address.rpartition("/")[2]
    part = path.with_suffix(".part")
    digest, size = hashlib.sha256(), 0
    with urlopen(address, timeout=TIMEOUT_S) as answer, part.open("wb") as file:
        while block := answer.read(1 << 20):
            digest.update(block)
            size += file.write(block)
    expected = re.findall(r"-([0-9a-f]{8,})\.", path.name)[-1]
    if not digest.hexdigest().startswith(expected):
        part.unlink()
        raise ValueError(f"{address} has the SHA-256 {digest.hexdigest()}, which should begin with {expected}")
    part.replace(path)
    print(f"bake_weights: {path.name}, {size / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
