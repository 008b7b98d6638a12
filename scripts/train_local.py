"""Train on this machine with the program and the files of the platform.

Examples:
  local_test/train_local.sh
  local_test/train_local.sh --data photos model=resnet50 epochs=3 lr=0.0005
  local_test/train_local.sh --data photos model=resnet50 epochs=6 lr=0.0005 --resume
  local_test/train_local.sh image-classifier epochs=3
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from classifier.contract.architectures import check_name
from classifier.contract.channels import find_channels
from classifier.contract.hyperparameters import Hyperparameters
from dataset.sample_data import write_digits
from launch.cli import create_parser, run_command
from launch.local.docker import ContainerEngine, Mount, find_engine, run
from launch.local.docker import run_command as docker_run_command
from launch.local.opt_ml import (
    CHECKPOINTS,
    JOB_NAME,
    check_replaceable,
    find_checkpoints,
    lay_out,
    publish,
    staging_folder,
)
from launch.local.processes import run_in_foreground
from launch.terminal import parse_pairs, print_status, read_hyperparameters

LOCAL_TEST = Path(__file__).resolve().parent.parent / "local_test"
SAMPLE_DATA = LOCAL_TEST / "sample_data"
SAMPLE_HYPERPARAMETERS = LOCAL_TEST / "sample_hyperparameters.json"

JOB_ENVIRONMENT = {
    "TRAINING_JOB_NAME": JOB_NAME,
    "TRAINING_JOB_ARN": f"arn:aws:sagemaker:local:000000000000:training-job/{JOB_NAME}",
}


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command("train_local", partial(_train, _parse(arguments)))


def _train(options: argparse.Namespace) -> int:
    output = options.output.resolve()
    channels = _channels(options)
    hyperparameters = _hyperparameters(options)
    check_name(Hyperparameters.parse(hyperparameters).model)
    engine = find_engine(options.image) if options.image else None
    check_replaceable(output, channels)
    staged = staging_folder(output)
    checkpoints = find_checkpoints(output) if options.resume else None
    config = {"checkpointconfig": {"LocalPath": CHECKPOINTS}}
    lay_out(staged, channels, hyperparameters, links=engine is None, config=config, checkpoints=checkpoints)
    code = _run_image(engine, options.image, staged, channels) if engine else _run_train(staged)
    if code == 0 and publish(output):
        print(f"renamed     {staged} to {output}: see {output / 'output' / 'data' / 'report.html'}", flush=True)
    else:
        kept = f"{output} is unchanged; " if output.exists() else ""
        can_resume = any((staged / "checkpoints").glob("checkpoint-*.safetensors"))
        hint = "; the same command with --resume continues from its last checkpoint" if can_resume else ""
        print_status(f"train_local: {kept}the files of this training are in {staged}{hint}")
    return code


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = create_parser("train_local.sh", __doc__)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of class folders, or of train/, validation/ and test/ with class folders, also called training/, "
        "val/, valid/, dev/ or testing/ (default: handwritten digits)",
    )
    parser.add_argument(
        "--channel", action="append", default=[], metavar="NAME=DIR", help="a further channel; repeatable"
    )
    parser.add_argument("--hyperparameters", type=Path, metavar="FILE", help="JSON object of hyperparameters")
    parser.add_argument(
        "--output",
        type=Path,
        default=LOCAL_TEST / "opt_ml",
        metavar="DIR",
        help="folder to use as /opt/ml, replaced once the training has succeeded (default: %(default)s)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint of an interrupted training, or with more epochs from a finished one; the "
        "other arguments have to be the same",
    )
    parser.add_argument(
        "hyperparameter",
        nargs="*",
        metavar="[IMAGE] KEY=VALUE",
        help="image to train in, with docker run; hyperparameters, listed by `train --describe`",
    )
    options = parser.parse_intermixed_args(arguments)
    # An image's name contains no =, so the argument without one is the image.
    images = [text for text in options.hyperparameter if "=" not in text]
    if len(images) > 1:
        parser.error(f"{images[1]!r} is not of the form KEY=VALUE, and there is an image already, {images[0]!r}")
    options.image = next(iter(images), None)
    options.hyperparameter = [text for text in options.hyperparameter if "=" in text]
    return options


def _channels(options: argparse.Namespace) -> dict[str, Path]:
    if options.data is None and not SAMPLE_DATA.is_dir():
        print(f"writing 1,797 handwritten digits to {SAMPLE_DATA}", flush=True)
        write_digits(SAMPLE_DATA)
    channels = find_channels(options.data or SAMPLE_DATA)
    for name, folder in parse_pairs(options.channel, "--channel NAME=DIR").items():
        channels[name] = Path(folder)
    return channels


def _hyperparameters(options: argparse.Namespace) -> dict[str, str]:
    """Return the hyperparameters of a file, or the sample data's own, overridden by the command line."""
    file = options.hyperparameters or (SAMPLE_HYPERPARAMETERS if options.data is None else None)
    return read_hyperparameters(file, options.hyperparameter)


def _run_train(base: Path) -> int:
    environment = {**os.environ, **JOB_ENVIRONMENT, "SAGEMAKER_BASE_DIR": str(base)}
    return run_in_foreground([sys.executable, "-m", "classifier.train"], environment=environment)


def _run_image(engine: ContainerEngine, image: str, base: Path, channels: Mapping[str, Path]) -> int:
    """Run the image's ``train``, with the channels mounted read-only as on the platform."""
    name = f"{JOB_NAME}-{os.getpid()}"
    mounts = [Mount(base, "/opt/ml")]
    mounts += [Mount(folder, f"/opt/ml/input/data/{channel}", read_only=True) for channel, folder in channels.items()]
    command = docker_run_command(engine, image, "train", name=name, mounts=mounts, environment=JOB_ENVIRONMENT)
    return run(command, name)


if __name__ == "__main__":
    sys.exit(main())
