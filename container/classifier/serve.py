"""The program `serve`: answers ``/ping`` and ``/invocations`` with what `train` made."""

import sys

from classifier.contract.driver import check_driver, read_host
from classifier.contract.paths import Paths
from classifier.errors import UserError
from classifier.serving.server import Server, check_port
from classifier.serving.settings import Settings
from classifier.vision.manifest import ModelManifest


def main() -> int:
    """Serve until SIGTERM. 0: stopped as told; 1: there is nothing to serve, and stderr says why."""
    paths = Paths.from_environment()
    try:
        check_driver(read_host(), "hosting")
        settings = Settings.from_environment()
        check_port(settings.port)
        if not settings.multi_model:
            # Before anything is forked: what is wrong here will not be right in a second worker.
            ModelManifest.read(paths.model)
    except UserError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    Server(paths, settings).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
