"""Other servers for comparison, in their own environment under .bench: LitServe, and TorchServe if Java is installed.

LitServe runs its documentation's image classifier (litserve_side.py); TorchServe, which is no longer developed, its own
``image_classifier`` handler.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import torchvision

from benchmarks.sides import Contender, Load, Running
from classifier.host import num_cores
from support.servers import free_port

HERE = Path(__file__).resolve().parent
REQUIREMENTS = (HERE / "requirements.txt", HERE / "torchserve.txt")
MODEL = '''"""A single model class, as torch-model-archiver requires."""
from torchvision.models.resnet import BasicBlock, ResNet


class ImageClassifier(ResNet):
    def __init__(self):
        super().__init__(BasicBlock, [2, 2, 2, 2])
'''


def install(venv: Path) -> Path:
    """Install the other servers in an environment that also sees the project's packages; return its Python."""
    python, installed = venv / "bin" / "python", venv / "requirements.txt"
    wanted = b"".join(path.read_bytes() for path in REQUIREMENTS)
    if installed.exists() and installed.read_bytes() == wanted:
        return python
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, venv], check=True)
    command = [uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", *_mirror(), *REQUIREMENTS]
    subprocess.run(command, check=True)
    [packages] = venv.glob("lib/python*/site-packages")
    # addsitedir, unlike a plain path, also processes the project's editable install.
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "project.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")
    installed.write_bytes(wanted)
    return python


def _mirror() -> list[str]:
    """Options that make uv use the package index that pip is configured for."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    address = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ["--default-index", address] if address else []


def litserve(kind: str, model: Path, python: Path, load: Load, *, workers: int, batch: int) -> Contender:
    """LitServe with ``kind`` "torch", the documentation's example, or "engine", the same with this project's engine."""

    def launch() -> Running:
        port = free_port()
        command = [python, HERE / "litserve_side.py", kind, model, "--port", str(port)]
        command += ["--workers", str(workers), "--batch", str(batch)]
        with (model.parent / "litserve.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT), port

    return Contender(f"LitServe, {kind}, {workers} workers, batch {batch}", launch, "/health", load)


def torchserve(store: Path, python: Path, load: Load, *, workers: int) -> Contender:
    """TorchServe on the model store that :func:`archive` created."""

    def launch() -> Running:
        port, management, metrics = free_port(), free_port(), free_port()
        settings = store.parent / "config.properties"
        settings.write_text(
            f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{management}\n"
            f"metrics_address=http://127.0.0.1:{metrics}\ndefault_workers_per_model={workers}\n"
            "disable_token_authorization=true\ndisable_system_metrics=true\n",
            encoding="utf-8",
        )
        command = [python.with_name("torchserve"), "--start", "--foreground", "--ncs", "--ts-config", settings]
        command += ["--model-store", store, "--models", "resnet18.mar"]
        environment = {
            **os.environ,
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "LOG_LOCATION": str(store.parent / "logs"),
            "METRICS_LOCATION": str(store.parent / "logs"),
            # Workers that each use all cores would stall each other at every layer.
            "OMP_NUM_THREADS": str(max(num_cores() // workers, 1)),
        }
        with (store.parent / "torchserve.log").open("wb") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT), port

    return Contender(f"TorchServe, {workers} workers", launch, "/ping", load)


def has_java() -> bool:
    """Whether Java, which TorchServe needs, is installed."""
    return shutil.which("java") is not None


def archive(folder: Path, python: Path) -> Path:
    """Write ResNet-18 with random weights as a TorchServe model store."""
    store = folder / "store"
    store.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    # ImageNet's number of classes, since the handler returns the top five.
    torch.save(torchvision.models.resnet18().state_dict(), folder / "weights.pth")
    command = [python.with_name("torch-model-archiver"), "--model-name", "resnet18", "--version", "1.0"]
    command += ["--model-file", folder / "model.py", "--serialized-file", folder / "weights.pth"]
    command += ["--handler", "image_classifier", "--export-path", store]
    subprocess.run(command, check=True, capture_output=True)
    return store
