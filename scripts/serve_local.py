"""Serve a trained model on this machine with the program that the platform runs, and a web page to try photos on.

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

from classifier.errors import ConfigError
from commands.running import run_command
from launch.local.docker import Mount, find_engine, run
from launch.local.docker import run_command as docker_run_command

LOCAL_TEST = Path(__file__).resolve().parent.parent / "local_test"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped; 1 with a message on stderr where that is not possible."""
    options = _parse(arguments)
    return run_command("serve_local", lambda: _serve(options))


def _serve(options: argparse.Namespace) -> int:
    if not (options.output / "model" / "model.json").is_file():
        raise ConfigError(f"{options.output}/model has no model; train one with local_test/train_local.sh")
    address = f"http://{options.bind}:{options.port}"
    print(f"serving {options.output / 'model'} on {address}; Ctrl-C stops it", flush=True)
    return _run_image(options) if options.image else _become_serve(options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="serve_local.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="container image to serve with, through docker run")
    parser.add_argument(
        "--output",
        type=Path,
        default=LOCAL_TEST / "opt_ml",
        metavar="DIR",
        help="folder that train_local.sh used as /opt/ml (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=int(os.environ.get("PORT", "8080")), help="port to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--bind",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on, 0.0.0.0 for all (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def _become_serve(options: argparse.Namespace) -> NoReturn:
    """Replace this process by ``serve``, so that it receives every signal."""
    environment = {
        **os.environ,
        "SAGEMAKER_BASE_DIR": str(options.output),
        "SAGEMAKER_BIND_TO_PORT": str(options.port),
        "SERVE_HOST": options.bind,
        "SERVE_PAGE": "1",
    }
    os.execve(sys.executable, [sys.executable, "-m", "classifier.serve"], environment)


def _run_image(options: argparse.Namespace) -> int:
    """Run ``serve`` in a container, with the model read-only as on the platform."""
    name = f"local-serving-{os.getpid()}"
    command = docker_run_command(
        find_engine(options.image),
        options.image,
        "serve",
        name=name,
        mounts=[Mount(options.output / "model", "/opt/ml/model", read_only=True)],
        environment={"SERVE_PAGE": "1"},
        options=["--publish", f"{options.bind}:{options.port}:8080"],
    )
    return run(command, name)


if __name__ == "__main__":
    sys.exit(main())
