"""Pretrained weights: sources, safe reading, and loading into a module with a different head."""

import os
import re
import socket
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from classifier.errors import WeightsError
from classifier.vision.models import AUXILIARY_PREFIXES, head_name, load_tensors

SUFFIXES = (".safetensors", ".pth", ".pt")
_HUB_TIMEOUT_S = 15.0


def load_pretrained(module: nn.Module, architecture: str, *, channel: Path | None) -> str:
    """Load pretrained weights into a module, except a head of a different shape.

    Sources, in order: the channel ``pretrained`` if there is one; weights baked into the image, in torch.hub's cache
    (``$TORCH_HOME``); torchvision's hub, into that cache or, where it can't be written, a temporary folder.

    Returns:
        The source of the weights, for logs and reports.

    Raises:
        WeightsError: no weights are available, or they do not fit the module.
    """
    if channel is not None:
        path = find_weights_file(channel, architecture)
        state, source = read_state_dict(path), f"channel 'pretrained', {path.name}"
    else:
        state, source = _from_hub(architecture)
    load_all_but_head(module, state, f"{architecture} ({source})")
    return source


def find_weights_file(folder: Path, architecture: str) -> Path:
    """Find the only weights file of a folder, or the only one named after the architecture.

    Raises:
        WeightsError: there is none, or the choice is ambiguous.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    named = [path for path in files if path.stem.startswith(architecture)]
    if len(files) == 1 or len(named) == 1:
        return (named or files)[0]
    found = ", ".join(path.name for path in files) or "none"
    raise WeightsError(
        f"channel 'pretrained' should hold one state dict ({', '.join(SUFFIXES)}), or one whose name begins with "
        f"{architecture!r}; found {found}"
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU from a ``.safetensors`` file, or from a ``.pth`` file without unpickling code.

    Raises:
        WeightsError: the file is neither.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # The file is untrusted, and on invalid ones the readers raise almost any exception.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path.name} can't be read safely as a state dict: {reason} — save it with "
            "torch.save(model.state_dict(), …) or as .safetensors"
        ) from None
    return _unwrap(content, path)


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """Extract the state dict, which training scripts often save under a key or with DataParallel's prefix."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path.name} holds no state dict: save it with torch.save(model.state_dict(), …)")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def load_all_but_head(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict into a module; a head of a different shape keeps its initial weights.

    Raises:
        WeightsError: any other tensor is missing, unknown or of a different shape.
    """
    own = module.state_dict()
    head = head_name(module) + "."
    given = {_current_name(name): value for name, value in state.items() if not name.startswith(AUXILIARY_PREFIXES)}
    given = _fit_position_embedding(given, own, module)
    given = {
        name: value
        for name, value in given.items()
        if not (name.startswith(head) and name in own and own[name].shape != value.shape)
    }
    optional = {name for name in own if name.startswith(head) or name.endswith("num_batches_tracked")}
    problems = [f"{name} is missing" for name in own if name not in given and name not in optional]
    problems += [f"{name} is unknown" for name in given if name not in own]
    problems += [
        f"{name} is {_shape(value)}, not {_shape(own[name])}"
        for name, value in given.items()
        if name in own and own[name].shape != value.shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(f"the pretrained weights do not fit {source}: {'; '.join(problems[:3])}{more}")
    load_tensors(module, given, strict=False)


def _current_name(name: str) -> str:
    # torchvision's DenseNet weights predate the ban on dots in module names.
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"


def _fit_position_embedding(
    given: dict[str, Tensor], own: Mapping[str, Tensor], module: nn.Module
) -> dict[str, Tensor]:
    """Interpolate a vision transformer's position embedding to the module's image size."""
    name = "encoder.pos_embedding"
    if not isinstance(module, models.VisionTransformer) or name not in given or given[name].shape == own[name].shape:
        return given
    try:
        return dict(interpolate_embeddings(module.image_size, module.patch_size, OrderedDict(given)))
    except ValueError:
        return given  # not a square of patches; load_all_but_head reports the mismatch


def _from_hub(architecture: str) -> tuple[dict[str, Tensor], str]:
    published = models.get_model_weights(architecture)["DEFAULT"]
    folder = _hub_folder(published.url)
    try:
        with _socket_timeout(_HUB_TIMEOUT_S):
            state = published.get_state_dict(model_dir=folder, progress=False, check_hash=True, weights_only=True)
            return dict(state), f"torchvision's {published}"
    except Exception as error:
        # Without a network, or with a missing or corrupt file, each layer below raises its own errors.
        raise WeightsError(
            f"pretrained weights for {architecture} are not available ({getattr(error, 'reason', error)}). "
            "Add a channel 'pretrained' with a .safetensors or .pth state dict, build the image with "
            f"BAKED_WEIGHTS={architecture}, or allow access to torchvision's hub. "
            "Or train from scratch: pretrained=false"
        ) from None


def _hub_folder(url: str) -> str:
    """The folder for torch.hub's file: its cache, or a temporary one where the cache lacks it and can't be written.

    The image's cache belongs to root, and training may run as any user or on a read-only root.
    """
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    if (cache / Path(urlsplit(url).path).name).exists():
        return str(cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return str(cache)
    except OSError:
        return str(Path(tempfile.gettempdir()) / f"torch-hub-{os.getuid()}")


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bound the time of torch.hub's downloads, which have no timeout: an isolated network must not hang the job."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
