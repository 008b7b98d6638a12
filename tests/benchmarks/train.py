"""How fast `train` trains, beside torchvision's reference recipe, on the same photos in one run on this machine.

  make bench-train
  PYTHONPATH=tests .venv/bin/python -m benchmarks.train --rounds 5
  BEFORE=/path/to/checkout make bench-train

ResNet-18 from scratch at 224 pixels, 32 photos a step, SGD, random crops and mirror images, JPEGs of 500 × 375 pixels.
Each side is a process of two epochs with validation; its second epoch is compared, and the time from start to end.
The recipe has the better of no worker process and one a core. Ours is also measured in fp32, as the recipe computes.
So are one and two ranks of one thread each, to be compared with one rank of two threads: the arithmetic is the same,
and the difference is what the ranks exchange. A ratio is the median of the rounds' ratios, since a machine's speed
drifts. Then comes what checkpoints cost (checkpoint_cost.py). Written to .bench/train.json, too.

With BEFORE, the other side is `train` of another checkout of this project, on the dependencies of this one if it has no
.venv, each first in every other round: about a minute a round. Written to .bench/train_before.json.
"""

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks import checkpoint_cost
from benchmarks.checkouts import checkout_from_environment
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.host import num_cores
from launch.local.opt_ml import lay_out
from support.drawing import SHAPES, draw_photo

ROOT = Path(__file__).resolve().parents[2]
NUM_PHOTOS = {"train": 384, "validation": 96}
EPOCHS, BATCH_SIZE, LR = 2, 32, 0.02
TWO_THREADS, ONE_THREAD, TWO_RANKS = "one rank of two threads", "one rank of one thread", "two ranks of one thread"


@dataclass(frozen=True)
class Time:
    """The second epoch's seconds with its validation, and those of the whole process."""

    epoch_s: float
    total_s: float


Side = Callable[[], Time]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="by default 3, and 5 with BEFORE")
    options = parser.parse_args()
    before = checkout_from_environment("train.py")
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        for seed, (channel, count) in enumerate(NUM_PHOTOS.items()):
            write_photos(base / "data" / channel, count, seed)
        if before:
            show_before(compare_checkouts(base, before, options.rounds or 5))
            return
        workers = best_workers(base)
        sides: dict[str, Side] = {
            "ours": lambda: ours(base, "auto"),
            "ours, fp32": lambda: ours(base, "fp32"),
            TWO_THREADS: lambda: ours(base, "fp32", num_threads=2),
            ONE_THREAD: lambda: ours(base, "fp32", num_threads=1),
            TWO_RANKS: lambda: ours(base, "fp32", num_threads=1, num_ranks=2),
            f"torchvision's recipe, {workers} workers": lambda: recipe(base, workers),
        }
        rounds = [{side: run() for side, run in sides.items()} for _ in range(options.rounds or 3)]
    show(rounds)


def write_photos(folder: Path, count: int, seed: int) -> None:
    """Drawn photos with the grain that makes a JPEG as large as a real one, spread over the classes."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        shape = list(SHAPES)[number % len(SHAPES)]
        drawn = np.asarray(draw_photo(500, 375, shape=shape, seed=seed * 10_000 + number), np.float32)
        pixels = (drawn + rng.normal(0, 12, drawn.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
        path = folder / shape / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())


def ours(
    base: Path,
    precision: str,
    program: Sequence[str | Path] = (),
    *,
    num_threads: int | None = None,
    num_ranks: int = 1,
    **environment: str,
) -> Time:
    """Train with the program ``train``, or with that of another checkout.

    Args:
        num_threads: torch's and the decoder's of each rank; None leaves their number to `train`.
    """
    paths = Paths(base / "opt_ml")
    threads = {} if num_threads is None else {"OMP_NUM_THREADS": str(num_threads)}
    hyperparameters = {
        "model": "resnet18",
        "pretrained": "false",
        "epochs": str(EPOCHS),
        "batch_size": str(BATCH_SIZE),
        "optimizer": "sgd",
        "lr": str(LR),
        "weight_decay": "0.0001",
        "scheduler": "constant",
        "precision": precision,
        "optimize_for_cpu": "false",
        "num_workers": "auto" if num_threads is None else str(num_threads),
    }
    if num_ranks > 1:
        hyperparameters["ranks_per_host"] = str(num_ranks)
    lay_out(paths.base, {channel: base / "data" / channel for channel in NUM_PHOTOS}, hyperparameters)
    program = program or [Path(sys.executable).with_name("train")]
    total_s, log = run(program, {"SAGEMAKER_BASE_DIR": str(paths.base), **threads, **environment})
    return Time(float(re.findall(r"^epoch .* ([\d.]+) s", log, re.MULTILINE)[-1]), total_s)


def recipe(base: Path, workers: int) -> Time:
    result = base / "recipe.json"
    command = [sys.executable, "-m", "benchmarks.recipe_side", base / "data", result, "--workers", str(workers)]
    total_s, _ = run([*command, "--epochs", str(EPOCHS), "--batch-size", str(BATCH_SIZE), "--lr", str(LR)], {})
    return Time(json.loads(result.read_text(encoding="utf-8"))[-1], total_s)


def compare_checkouts(base: Path, before: Path, rounds: int) -> list[dict[str, Time]]:
    """Train with both checkouts in turn, each first in every other round."""
    own = before / ".venv" / "bin" / "python"
    program = [own if own.exists() else sys.executable, "-m", "classifier.train"]
    sides: dict[str, Side] = {
        "ours": lambda: ours(base, "auto"),
        "before": lambda: ours(base, "auto", program, PYTHONPATH=str(before / "container")),
    }
    results = []
    for number in range(rounds):
        done = {name: sides[name]() for name in list(sides)[:: -1 if number % 2 else 1]}
        results.append({name: done[name] for name in sides})
        times = ", ".join(f"{name} {one.epoch_s:.1f} s of {one.total_s:.1f} s" for name, one in done.items())
        print(f"round {number + 1}: {times}", flush=True)
    return results


def show_before(rounds: list[dict[str, Time]]) -> None:
    """Print and write the ratios, of which more than 1 means that this checkout is faster."""
    print_table(rounds)
    ratios = {
        "vs_before": median(one["before"].epoch_s / one["ours"].epoch_s for one in rounds),
        "vs_before_total": median(one["before"].total_s / one["ours"].total_s for one in rounds),
    }
    write_figures("train_before.json", ratios)


def run(command: Sequence[str | Path], environment: Mapping[str, str]) -> tuple[float, str]:
    """Seconds that a program took, and its output."""
    began = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began, done.stdout


def best_workers(base: Path) -> int:
    times = {workers: recipe(base, workers).epoch_s for workers in (0, num_cores())}
    for workers, seconds in times.items():
        print(f"tried: torchvision's recipe, {workers} workers: an epoch in {seconds:.1f} s", flush=True)
    return min(times, key=lambda workers: times[workers])


def show(rounds: list[dict[str, Time]]) -> None:
    print_table(rounds)
    fast, same, *_, other = rounds[0]
    figures = {
        "vs_recipe": median(one[other].epoch_s / one[fast].epoch_s for one in rounds),
        "vs_recipe_fp32": median(one[other].epoch_s / one[same].epoch_s for one in rounds),
        "vs_recipe_total": median(one[other].total_s / one[fast].total_s for one in rounds),
    }
    for name, before in (("ranks_2_vs_2_threads", TWO_THREADS), ("ranks_2_vs_1", ONE_THREAD)):
        figures[name] = median(one[before].epoch_s / one[TWO_RANKS].epoch_s for one in rounds)
    cost = checkpoint_cost.measure(len(rounds), 12)
    checkpoint_cost.show(cost)
    figures |= cost.shares(Hyperparameters().checkpoint_interval_s)
    write_figures("train.json", figures)


def print_table(rounds: list[dict[str, Time]]) -> None:
    """Print each side's medians."""
    num_photos = NUM_PHOTOS["train"]
    print(f"{'':<36} {'epoch s':>8} {'photos/s':>9} {'total s':>8}")
    for name in rounds[0]:
        epoch_s = median(one[name].epoch_s for one in rounds)
        total_s = median(one[name].total_s for one in rounds)
        print(f"{name:<36} {epoch_s:>8.2f} {num_photos / epoch_s:>9.1f} {total_s:>8.1f}")


def write_figures(name: str, figures: Mapping[str, float]) -> None:
    """Print the figures, and write them to a file of .bench."""
    for title, value in figures.items():
        print(f"  {title:<28} {value:8.4f}")
    folder = ROOT / ".bench"
    folder.mkdir(exist_ok=True)
    rounded = {title: round(value, 5) for title, value in figures.items()}
    (folder / name).write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
