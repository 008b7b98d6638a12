"""The network that a training starts with: from scratch, pretrained, or trained before."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from classifier.archives import is_archive, unpack_tar
from classifier.contract.config import TrainingConfig
from classifier.contract.paths import Paths
from classifier.errors import ArtifactError
from classifier.training.checkpoints import digest_of
from classifier.vision.manifest import MANIFEST_FILE, WEIGHTS_FILE, ModelManifest
from classifier.vision.models import build, check_image_size, head_name
from classifier.vision.weights import load_all_but_head, load_pretrained

_NUM_NAMED = 5  # classes that a line of the log names


@dataclass(frozen=True)
class Start:
    """A network before its first step.

    Attributes:
        source: where its weights come from, in words.
        given: the layers whose weights come from there; the seed determines the others.
    """

    network: nn.Module
    source: str
    given: Literal["none", "backbone", "all"]

    def digest(self) -> str:
        """Return a digest of the weights that were given; empty from scratch."""
        if self.given == "none":
            return ""
        head = f"{head_name(self.network)}."
        state = self.network.state_dict()
        return digest_of({name: one for name, one in state.items() if self.given == "all" or not name.startswith(head)})


def build_network(config: TrainingConfig, paths: Paths, classes: Sequence[str]) -> Start:
    """Build the network of a job and load its starting weights.

    They come from the channel ``model``, a model of an earlier training; else from the channel ``pretrained``, the
    image or torchvision's hub; with ``pretrained=false``, from nowhere.

    Args:
        classes: the folder names, in the order of the logits.

    Raises:
        UserError: there is no such architecture for this image size, or no weights that fit it.
    """
    parameters = config.hyperparameters
    network = build(parameters.model, num_classes=len(classes), image_size=parameters.image_size)
    check_image_size(network, parameters.model, parameters.image_size)
    if "model" in config.channels:
        with _model_folder(paths.channel("model")) as folder:
            return _load_trained(network, parameters.model, classes, folder)
    if not parameters.pretrained:
        return Start(network, "from scratch", "none")
    channel = paths.channel("pretrained") if "pretrained" in config.channels else None
    source = load_pretrained(network, parameters.model, channel=channel)
    return Start(network, f"pretrained ({source})", "backbone")


@contextmanager
def _model_folder(channel: Path) -> Iterator[Path]:
    """Yield the folder of the model in the channel ``model``, which holds its files or an archive of them."""
    if (channel / MANIFEST_FILE).is_file():
        yield channel
        return
    named = channel / "model.tar.gz"  # a job's folder on S3 also holds output.tar.gz
    archives = [named] if named.is_file() else [path for path in sorted(channel.iterdir()) if is_archive(path)]
    if len(archives) != 1:
        found = ", ".join(path.name for path in sorted(channel.iterdir())) or "nothing"
        raise ArtifactError(
            f"channel 'model' should hold one model.tar.gz, or {MANIFEST_FILE} and the rest; found {found}"
        )
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        unpack_tar(archives[0], Path(folder))
        yield Path(folder)


def _load_trained(network: nn.Module, architecture: str, classes: Sequence[str], folder: Path) -> Start:
    """Load an earlier model; with other classes, all but its head."""
    manifest = ModelManifest.read(folder)
    if manifest.architecture != architecture:
        raise ArtifactError(
            f"the model in channel 'model' is a {manifest.architecture}, and model={architecture}: set "
            f"model={manifest.architecture}"
        )
    try:
        state = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"channel 'model': {WEIGHTS_FILE} can't be read: {error}") from None
    before = [label.folder for label in manifest.classes]
    where = f"{architecture} (channel 'model')"
    if before == list(classes):
        load_all_but_head(network, state, where)
        return Start(network, "trained before (channel 'model')", "all")
    head = f"{head_name(network)}."
    load_all_but_head(network, {name: one for name, one in state.items() if not name.startswith(head)}, where)
    added, gone = ([name for name in one if name not in other] for one, other in ((classes, before), (before, classes)))
    changes = [f"{word} {_name(names)}" for word, names in (("new", added), ("gone", gone)) if names]
    source = f"trained before (channel 'model'), with a new head, since the classes differ: {'; '.join(changes)}"
    return Start(network, source, "backbone")


def _name(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return ", ".join(names[:_NUM_NAMED]) + more
