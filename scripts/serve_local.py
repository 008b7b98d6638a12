"""Serve a trained model on this machine, by the same program as on the platform, with a page to drop a photo on.

Examples:
  local_test/serve_local.sh
  local_test/serve_local.sh image-classifier --port 9000
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from classifier.errors import ConfigError, UserError
from launch.local.docker import Mount, find_engine, run, run_command

LOCAL_TEST = Path(__file__).resolve().parent.parent / "local_test"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        if not (options.output / "model" / "model.json").is_file():
            raise ConfigError(f"{options.output}/model holds no model: local_test/train_local.sh makes one")
        print(f"serving {options.output / 'model'} on http://127.0.0.1:{options.port}; Ctrl-C ends it", flush=True)
        if options.image:
            return _run_image(options)
    except UserError as error:
        print(f"serve_local: {error}", file=sys.stderr)
        return 1
    return _become_serve(options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="serve_local.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="an image to serve from, through docker run")
    parser.add_argument(
        "--output",
        type=Path,
        default=LOCAL_TEST / "opt_ml",
        metavar="DIR",
        help="the folder that train_local.sh used as /opt/ml (default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")), help="default: %(default)s")
    return parser.parse_args(arguments)


def _become_serve(options: argparse.Namespace) -> NoReturn:
    """Hand this process over to ``serve``, so that every signal reaches it."""
    environment = {
        **os.environ,
        "SAGEMAKER_BASE_DIR": str(options.output),
        "SAGEMAKER_BIND_TO_PORT": str(options.port),
        "SERVE_PAGE": "1",
    }
    os.execve(sys.executable, [sys.executable, "-m", "classifier.serve"], environment)


def _run_image(options: argparse.Namespace) -> int:
    """Run the image's ``serve``; the model is read-only there, as on the platform."""
    name = f"local-serving-{os.getpid()}"
    command = run_command(
        find_engine(options.image),
        options.image,
        "serve",
        name=name,
        mounts=[Mount(options.output / "model", "/opt/ml/model", read_only=True)],
        environment={"SERVE_PAGE": "1"},
        options=["--publish", f"127.0.0.1:{options.port}:8080"],
    )
    return run(command, name)


if __name__ == "__main__":
    sys.exit(main())
