"""An image classifier on LitServe, after its documentation; started by serve.py for comparison.

Two kinds: ``torch``, the documentation's example with ResNet-18, and ``engine``, the same with this project's engine.
"""

import argparse
import base64
import io
from pathlib import Path
from typing import Any

import litserve  # pyright: ignore[reportMissingImports] - in an environment of its own
import numpy as np
import torch
import torchvision
from PIL import Image

from classifier.engine.opening import open_engine
from classifier.engine.openvino import MAX_BATCH
from classifier.host import num_cores
from classifier.vision.manifest import ModelManifest


class _ImageClassifier(litserve.LitAPI):
    """The part that both kinds share: base64 in JSON as input, a class index as output."""

    def __init__(self, folder: Path, num_threads: int, **options: Any) -> None:
        super().__init__(**options)
        self.folder = folder
        self.num_threads = num_threads

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["image_data"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def unbatch(self, output: list[int]) -> list[int]:
        return output

    def encode_response(self, output: int) -> dict[str, int]:
        return {"output": output}


class TorchClassifier(_ImageClassifier):
    """torchvision's transforms and model."""

    def setup(self, device: str) -> None:
        self.transforms = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
        # Workers that each use all cores would stall each other at every layer.
        torch.set_num_threads(self.num_threads)
        num_classes = len(ModelManifest.read(self.folder).classes)
        self.model = torchvision.models.resnet18(num_classes=num_classes).eval().to(device)

    def predict(self, data: Any) -> Any:
        photos = data if isinstance(data, list) else [data]
        pixels = torch.stack([self.transforms(Image.open(io.BytesIO(one)).convert("RGB")) for one in photos])
        with torch.inference_mode():
            found = self.model(pixels).argmax(1).tolist()
        return found if isinstance(data, list) else found[0]


class EngineClassifier(_ImageClassifier):
    """This project's preprocessing and engine."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        manifest = ModelManifest.read(self.folder)
        self.preprocessing = manifest.preprocessing
        self.engine = open_engine(self.folder, manifest)

    def predict(self, data: Any) -> Any:
        photos = data if isinstance(data, list) else [data]
        pixels = np.stack([self.preprocessing.pixels_of(one) for one in photos])
        found = self.engine.infer(0, pixels).argmax(1).tolist()
        return found if isinstance(data, list) else found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["torch", "engine"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    kind = {"torch": TorchClassifier, "engine": EngineClassifier}[options.kind]
    size = min(options.batch, MAX_BATCH) if options.kind == "engine" else options.batch
    threads = max(num_cores() // options.workers, 1)
    api = kind(options.model, threads, max_batch_size=size, batch_timeout=0.01 if size > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=options.workers)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
