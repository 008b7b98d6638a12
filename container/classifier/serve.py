"""The program `serve`: answers ``/ping`` and ``/invocations`` with a model that `train` wrote."""

import sys

from classifier.contract.driver import check_driver, read_host
from classifier.contract.paths import Paths
from classifier.errors import UserError
from classifier.serving.server import GunicornApplication, check_port
from classifier.serving.settings import ServerSettings
from classifier.vision.manifest import ModelManifest


def main() -> int:
    """Serve until SIGTERM. Returns 0, or 1 with a message on stderr if there is nothing to serve."""
    paths = Paths.from_environment()
    try:
        check_driver(read_host(), "hosting")
        settings = ServerSettings.from_environment()
        check_port(settings.host, settings.port)
        if not settings.multi_model:
            # Checked before the fork, since a second worker would fail on the same artifact.
            ModelManifest.read(paths.model)
    except UserError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    GunicornApplication(paths, settings).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
