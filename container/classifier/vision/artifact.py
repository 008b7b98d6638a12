"""Artifacts of trained models: ``model.safetensors`` and ``model.json``. Nothing in them is unpickled."""

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
    """A torchvision network preceded by normalization, as one module."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (N, 3, S, S), uint8 or floats in 0–255, to logits (N, num_classes)."""
        return self.network(self.normalize(pixels))

    def normalize(self, pixels: Tensor) -> Tensor:
        """Map pixels (N, 3, S, S) in 0–255 to normalized float32 of the same shape, channels last in memory."""
        scaled = pixels.to(self.mean.dtype, memory_format=torch.channels_last) / 255
        return (scaled - self.mean) / self.std


def save(folder: Path, network: nn.Module, manifest: ModelManifest) -> None:
    """Write an artifact, replacing an existing one. The same weights and manifest give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    unfinished = folder / f".{WEIGHTS_FILE}.part"
    save_file(state, unfinished)
    unfinished.chmod(0o644)  # safetensors creates it as 0600, but another user may serve it
    unfinished.replace(folder / WEIGHTS_FILE)
    manifest.write(folder)


def load(folder: Path, device: torch.device | str = "cpu") -> tuple[Classifier, ModelManifest]:
    """Load an artifact's classifier, in evaluation mode, and its manifest.

    Raises:
        ArtifactError: the folder contains no artifact, or its weights do not match its manifest.
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
    except OSError as error:
        raise ArtifactError(f"{folder / WEIGHTS_FILE} can't be read: {error.strerror or error}") from None
    except (SafetensorError, RuntimeError) as error:
        raise ArtifactError(f"{folder / WEIGHTS_FILE}: {str(error).splitlines()[0]}") from None
    return Classifier(network, manifest.preprocessing).to(device).eval(), manifest
