"""Fetches torchvision's weights while the image is built: `bake_weights.py MODEL…`.

They land where torch.hub keeps its downloads, and so are found without a network when a training asks for them.
"""

import sys
from urllib.error import URLError

from torchvision import models

OFFLINE = "to build without a network, leave them out: docker build --build-arg BAKED_WEIGHTS= …"


def main(names: list[str]) -> int:
    for name in names:
        try:
            fetch(name)
        except ValueError as error:
            print(f"bake_weights: {error}; `train --models` lists the names", file=sys.stderr)
            return 1
        except (URLError, OSError, RuntimeError) as error:
            reason = getattr(error, "reason", error)
            print(f"bake_weights: the weights of {name} can't be fetched ({reason}); {OFFLINE}", file=sys.stderr)
            return 1
    return 0


def fetch(name: str) -> None:
    """
    Raises:
        ValueError: torchvision has no such model.
        OSError: its hub can't be reached.
        RuntimeError: what came is not what torchvision published, by its hash.
    """
    weights = models.get_model_weights(name)["DEFAULT"]
    weights.get_state_dict(progress=False, check_hash=True)
    print(f"bake_weights: {weights}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
