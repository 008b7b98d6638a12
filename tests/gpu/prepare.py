"""Collect what the GPU checks need on a machine without access to anything: wheels, photos and weights, in `.gpu`.

  .venv/bin/python tests/gpu/prepare.py [--photos FOLDER] [--weights FOLDER] [--python 3.12]

Then carry the checkout with that folder to a machine with a GPU and run tests/gpu/run.sh there. It has to have Python,
torch, torchvision, torchmetrics, safetensors, matplotlib, tqdm, pytest, psutil and prometheus-client of its own.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".gpu"
# What a machine with torch alone lacks; their dependencies come with them.
WHEELS = ("pydantic", "flask", "gunicorn", "plotly", "msgspec", "nvidia-ml-py", "pytest-timeout")
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
NUM_PHOTOS = {"train": 720, "validation": 180, "test": 300}
SIDE = 320
MAX_BYTES = 64 << 20


def main() -> int:
    """Collect everything anew, and return 1 if it is too large to carry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=ROOT.parent / "shared" / "data" / "clothing10")
    parser.add_argument("--weights", type=Path, default=ROOT.parent / "shared" / "weights")
    parser.add_argument("--python", default="3.12", help="Python's version on the other machine")
    options = parser.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    download(FOLDER / "wheels", options.python)
    for channel, count in NUM_PHOTOS.items():
        shrink(options.photos / channel, FOLDER / "photos" / channel, count)
    (FOLDER / "weights").mkdir()
    shutil.copy(options.weights / "mobilenet_v2_imagenet.pth", FOLDER / "weights")
    size = sum(path.stat().st_size for path in [*FOLDER.rglob("*"), *tracked()] if path.is_file())
    print(f"{FOLDER.name} and the tracked files: {size / 2**20:.1f} MiB of at most {MAX_BYTES >> 20}")
    return int(size > MAX_BYTES)


def download(folder: Path, python: str) -> None:
    """Download the wheels, in our versions and with their dependencies, from the index that pip is configured with."""
    options = [f"--platform={name}" for name in PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", f"--python-version={python}"]
    subprocess.run([*command, *options, f"--dest={folder}", *pins()], check=True)


def pins() -> Iterator[str]:
    """Yield the requirements of WHEELS as pyproject.toml pins them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    optional, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
    known = [*project["project"]["dependencies"], *optional["image"], *groups["dev"]]
    for name in WHEELS:
        yield next(one for one in known if one.partition("==")[0] == name)


def shrink(source: Path, target: Path, count: int) -> None:
    """Write as many photos as asked for, spread over the classes, with a longer side of SIDE pixels at most."""
    classes = sorted(path for path in source.iterdir() if path.is_dir())
    for number, folder in enumerate(classes):
        share = (number + 1) * count // len(classes) - number * count // len(classes)
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:share]:
            with Image.open(path) as image:
                photo = image.convert("RGB")
            photo.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            content = io.BytesIO()
            photo.save(content, "JPEG", quality=85)
            (target / folder.name / f"{path.stem}.jpg").write_bytes(content.getvalue())


def tracked() -> list[Path]:
    """Return the checkout's own files, which travel, too."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name]


if __name__ == "__main__":
    sys.exit(main())
