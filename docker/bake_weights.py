"""Download of torchvision's weights into the image: `bake_weights.py MODEL…`, run by the Dockerfile.

The weights go to torch.hub's cache, where a training finds them without a network.
"""

import sys
from urllib.error import URLError

from torchvision import models

OFFLINE = "to build without a network, skip the download: docker build --build-arg BAKED_WEIGHTS= …"


def main(names: list[str]) -> int:
    """Download the weights of each model and return the exit code."""
    for name in names:
        try:
            fetch(name)
        except ValueError as error:
            print(f"bake_weights: {error}; `train --models` lists all names", file=sys.stderr)
            return 1
        except (URLError, OSError, RuntimeError) as error:
            reason = getattr(error, "reason", error)
            print(f"bake_weights: can't download the weights of {name} ({reason}); {OFFLINE}", file=sys.stderr)
            return 1
    return 0


def fetch(name: str) -> None:
    """Download the weights of a model.

    Raises:
        ValueError: torchvision has no such model.
        OSError: torchvision's hub is unreachable.
        RuntimeError: the hash of the file is not the published one.
    """
    weights = models.get_model_weights(name)["DEFAULT"]
    weights.get_state_dict(progress=False, check_hash=True)
    print(f"bake_weights: {weights}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
