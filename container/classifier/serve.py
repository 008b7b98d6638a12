"""The program `serve`: answers ``/ping`` and ``/invocations`` with a model that `train` wrote."""

import argparse
import json
import sys
from collections.abc import Sequence

from classifier.contract.driver import check_driver, read_host
from classifier.contract.paths import Paths
from classifier.errors import UserError
from classifier.serving.server import GunicornApplication, check_port
from classifier.serving.settings import ServerSettings
from classifier.vision.manifest import ModelManifest


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. Returns 0, or 1 with a message on stderr if there is nothing to serve."""
    options = _parse(arguments)
    paths = Paths.from_environment()
    try:
        settings = ServerSettings.from_environment()
        if options.openapi:
            print(_describe_api(settings))
            return 0
        check_driver(read_host(), "hosting")
        check_port(settings.host, settings.port)
        if not settings.multi_model:
            # Checked before the fork, since a second worker would fail on the same artifact.
            ModelManifest.read(paths.model)
    except UserError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    GunicornApplication(paths, settings).run()
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="serve", description="Serve the model in /opt/ml/model, or several if SAGEMAKER_MULTI_MODEL is true."
    )
    parser.add_argument("--openapi", action="store_true", help="print the description of the API as JSON and exit")
    return parser.parse_args(arguments)


def _describe_api(settings: ServerSettings) -> str:
    from classifier.serving.app import describe_api  # noqa: PLC0415 - imports Flask and the codecs

    return json.dumps(describe_api(settings), separators=(",", ":"))


if __name__ == "__main__":
    sys.exit(main())
