"""``model.safetensors`` + ``model.json`` ↔ a classifier. Nothing in an artifact is ever unpickled."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from classifier.errors import ArtifactError, ConfigError
from classifier.vision.manifest import MANIFEST_FILE, WEIGHTS_FILE, ModelManifest
from classifier.vision.models import build, load_tensors
from classifier.vision.preprocessing import Preprocessing


class Classifier(nn.Module):
    """Pixels → logits: normalisation, then a torchvision network, as one module."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 pixels (N, 3, S, S), or floats of the same range 0–255, → logits (N, num_classes)."""
        return self.network(self.normalise(pixels))

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (N, 3, S, S) → float32, less the mean, by the standard deviation, channels last."""
        scaled = pixels.to(self.mean.dtype, memory_format=torch.channels_last) / 255
        return (scaled - self.mean) / self.std


def save(folder: Path, network: nn.Module, manifest: ModelManifest) -> None:
    """Write an artifact, or replace it whole. The same weights and manifest give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    unfinished = folder / f".{WEIGHTS_FILE}.part"
    save_file(state, unfinished)
    unfinished.chmod(0o644)  # safetensors leaves it to its owner alone, and another user may serve it
    unfinished.replace(folder / WEIGHTS_FILE)
    manifest.write(folder)


def load(folder: Path, device: torch.device | str = "cpu") -> tuple[Classifier, ModelManifest]:
    """An artifact's classifier, ready to predict, and its manifest.

    Raises:
        ArtifactError: the folder holds no artifact, or one whose parts do not fit each other.
    """
    manifest = ModelManifest.read(folder)
    try:
        network = build(
            manifest.architecture, num_classes=len(manifest.classes), image_size=manifest.preprocessing.crop
        )
        load_tensors(network, load_file(folder / WEIGHTS_FILE))
    except ConfigError as error:
        raise ArtifactError(f"{folder / MANIFEST_FILE}: {error}") from None
    except FileNotFoundError:
        raise ArtifactError(f"{folder} holds no {WEIGHTS_FILE}") from None
    except (SafetensorError, RuntimeError) as error:
        raise ArtifactError(f"{folder / WEIGHTS_FILE}: {str(error).splitlines()[0]}") from None
    return Classifier(network, manifest.preprocessing).to(device).eval(), manifest
