"""How much memory the photos of a training need, by their number.

  PYTHONPATH=tests .venv/bin/python -m benchmarks.million --photos 10000 1000000
  PYTHONPATH=tests .venv/bin/python -m benchmarks.million --photos 10000 100000 --kind folders

Small JPEGs, all different, in a hundred classes: tar shards, or class folders. For each number of them, a process of
its own checks the photos, splits them and loads one epoch in batches of 32. Its peak memory without the packed table
should not grow: the last line compares the largest number with the smallest. Written to .bench/million.json, too.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.processes import peak
from classifier.contract.paths import Paths
from launch.local.opt_ml import lay_out
from support.drawing import draw_photo, encode

ROOT = Path(__file__).resolve().parents[2]
NUM_CLASSES, PHOTOS_A_SHARD = 100, 10_000
MOST = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--kind", choices=("shards", "folders"), default="shards")
    parser.add_argument("--mode", choices=("File", "FastFile"), default="File")
    parser.add_argument("--folder", type=Path, help="where to work, instead of the system's temporary folder")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    rows = [run(number, options) for number in options.photos]
    for row in rows:
        number, table = row["photos"], row["table"]
        print(
            f"{number:>9,} photos: peak {row['peak'] / 1e6:,.0f} MB, of which table {table / 1e6:,.1f} MB "
            f"({table / number:.0f} bytes a photo); checked at {number / row['scan_s']:,.0f}/s, "
            f"loaded at {number / row['epoch_s']:,.0f}/s"
        )
    first, last = ((row["peak"] - row["table"]) for row in (rows[0], rows[-1]))
    print(f"memory of the last ÷ memory of the first, without the table: {last / first:.2f} (at most {MOST})")
    (ROOT / ".bench").mkdir(exist_ok=True)
    (ROOT / ".bench" / "million.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    sys.exit(last > MOST * first)


def run(number: int, options: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        base = Path(name)
        write = write_shards if options.kind == "shards" else write_folders
        write(base / "train", number)
        lay_out(base / "opt_ml", {"train": base / "train"}, {})
        channels = {"train": {"TrainingInputMode": options.mode}}
        (base / "opt_ml" / "input" / "config" / "inputdataconfig.json").write_text(json.dumps(channels))
        command = [sys.executable, "-m", "benchmarks.million", "--measure", str(base / "opt_ml")]
        return json.loads(
            subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1]
        )


def photos(number: int) -> Iterator[tuple[str, bytes]]:
    """Paths and bytes of photos. What follows a JPEG's end makes its bytes unlike all others'."""
    data = encode(draw_photo(32, 32), quality=50)
    return (
        (f"{index % NUM_CLASSES:03}.class/{index:09}.jpg", data + index.to_bytes(8, "big")) for index in range(number)
    )


def write_shards(folder: Path, number: int) -> None:
    folder.mkdir()
    classes = "".join(f"{label:03}.class\n" for label in range(NUM_CLASSES))
    (folder / "classes.txt").write_text(classes, encoding="utf-8")
    source = photos(number)
    for shard in range(-(-number // PHOTOS_A_SHARD)):
        with tarfile.open(folder / f"{shard:05}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for _, (name, data) in zip(range(PHOTOS_A_SHARD), source, strict=False):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]


def write_folders(folder: Path, number: int) -> None:
    for label in range(NUM_CLASSES):
        (folder / f"{label:03}.class").mkdir(parents=True)
    for name, data in photos(number):
        (folder / name).write_bytes(data)


def measure(base: Path) -> dict[str, float]:
    """Check, split and load the photos of a job, and return what that took."""
    from classifier.contract.config import read_training_config  # noqa: PLC0415 - these import torch
    from classifier.training.batches import ImageLoader  # noqa: PLC0415
    from classifier.training.console import Console, Progress, StopSignal  # noqa: PLC0415
    from classifier.training.data import list_channels, load_data  # noqa: PLC0415
    from classifier.training.plan import EpochPlan  # noqa: PLC0415
    from classifier.vision.preprocessing import Preprocessing  # noqa: PLC0415

    paths = Paths(base)
    config, workers = read_training_config(paths, {}), len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as executor:
        started = time.perf_counter()
        folders = list_channels(config, paths)
        progress = Progress(Console(), StopSignal())
        data = load_data(folders, config.hyperparameters, paths.output_data, executor, progress)
        checked = time.perf_counter()
        loader = ImageLoader(data.train, Preprocessing(resize=36, crop=32), executor=executor, num_workers=workers)
        plan = EpochPlan(len(loader), 32, 0, data.train.shard_order)
        seen = sum(len(batch.labels) for batch in loader.iterate(plan.batches(1), seed=0, epoch=1))
        ended = time.perf_counter()
    assert seen == len(data.train)
    number = len(data.train) + len(data.validation)
    table = data.train.num_bytes + 4 * len(data.validation)
    return {
        "photos": number,
        "peak": peak(os.getpid()),
        "table": table,
        "scan_s": checked - started,
        "epoch_s": (ended - checked) * number / seen,
    }


if __name__ == "__main__":
    main()
