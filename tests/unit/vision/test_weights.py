"""Pretrained weights: sources, safe reading, loading with another head."""

import os
import pickle
import re
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from classifier.errors import WeightsError
from classifier.vision.models import build, head_name
from classifier.vision.weights import find_weights_file, load_all_but_head, load_pretrained, read_state_dict
from support.hub import running_hub

ARCHITECTURE = "squeezenet1_1"  # the smallest in torchvision
State = dict[str, Tensor]


def network(num_classes: int = 3, architecture: str = ARCHITECTURE) -> nn.Module:
    return build(architecture, num_classes=num_classes, image_size=64)


@pytest.fixture(scope="module")
def published() -> State:
    """A state dict as torchvision publishes it: 1,000 classes."""
    return network(1000).state_dict()


def save(path: Path, state: Mapping[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(dict(state), path)
    else:
        torch.save(state, path)
    return path


def check_backbone(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    head = head_name(module) + "."
    names = [name for name in module.state_dict() if not name.startswith(head)]
    assert names
    assert all(torch.equal(module.state_dict()[name], state[name]) for name in names)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_head_of_another_size_keeps_its_initial_weights(tmp_path: Path, published: State, suffix: str) -> None:
    module = network(3)
    fresh = {name: value.clone() for name, value in module.state_dict().items() if name.startswith(head_name(module))}
    save(tmp_path / f"weights{suffix}", published)
    assert load_pretrained(module, ARCHITECTURE, channel=tmp_path) == f"channel 'pretrained', weights{suffix}"
    check_backbone(module, published)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in fresh.items())


def test_head_of_the_same_size_is_loaded(tmp_path: Path) -> None:
    tuned, module = network(3), network(3)
    save(tmp_path / "tuned.safetensors", tuned.state_dict())
    load_pretrained(module, ARCHITECTURE, channel=tmp_path)
    assert all(torch.equal(value, tuned.state_dict()[name]) for name, value in module.state_dict().items())


WRAPPINGS: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}, "args": None},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.5},
    "DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "both": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_common_checkpoint_layouts_are_read(tmp_path: Path, published: State, wrapping: str) -> None:
    torch.save(WRAPPINGS[wrapping](published), tmp_path / "checkpoint.pth")
    state = read_state_dict(tmp_path / "checkpoint.pth")
    assert state.keys() == published.keys()
    assert all(torch.equal(state[name], value) for name, value in published.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_both_file_formats_of_torch_are_read(tmp_path: Path, published: State, zipped: bool) -> None:
    torch.save(published, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    assert read_state_dict(tmp_path / "weights.pth").keys() == published.keys()


@pytest.mark.parametrize("architecture", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)])
def test_auxiliary_heads_are_ignored(architecture: str) -> None:
    complete = models.get_model(architecture, weights=None, aux_logits=True, init_weights=False)
    state = complete.state_dict()
    assert any(name.lower().startswith("aux") for name in state)
    module = network(3, architecture)
    load_all_but_head(module, state, "test")
    check_backbone(module, state)


def test_old_names_in_densenet_weights_are_mapped() -> None:
    module = models.DenseNet(8, (1, 1, 1, 1), 16, num_classes=10)
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): value
        for name, value in module.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    fresh = models.DenseNet(8, (1, 1, 1, 1), 16, num_classes=3)
    load_all_but_head(fresh, state, "test")
    assert all(
        torch.equal(value, module.state_dict()[name])
        for name, value in fresh.state_dict().items()
        if not name.startswith("classifier")
    )


def test_weights_without_a_version_are_loaded_into_a_versioned_network() -> None:
    published = network(10, "mnasnet0_5").state_dict()
    module = network(3, "mnasnet0_5")
    load_all_but_head(module, dict(published), "test")
    check_backbone(module, published)


def transformer(image_size: int, num_classes: int) -> nn.Module:
    """A small vision transformer of torchvision's class."""
    return models.VisionTransformer(image_size, 32, 1, 2, 16, 16, num_classes=num_classes)


def test_position_embedding_is_interpolated_to_the_image_size() -> None:
    published = transformer(224, num_classes=10).state_dict()
    embedding = torch.linspace(0, 1, 50).view(1, 50, 1).expand(1, 50, 16).clone()
    published["encoder.pos_embedding"] = embedding
    module = transformer(96, num_classes=3)
    load_all_but_head(module, published, "test")
    fitted = module.get_parameter("encoder.pos_embedding")
    assert fitted.shape == (1, 10, 16)
    assert torch.equal(fitted[:, 0], embedding[:, 0])
    assert fitted[0, 1:, 0].diff().min() > 0


@pytest.mark.parametrize("shape", [(1, 49, 16), (50, 16), (2, 50, 16), (1, 50, 8), (1, 0, 16)])
def test_invalid_position_embedding_is_an_error(shape: tuple[int, ...]) -> None:
    module = transformer(96, num_classes=3)
    state = {**module.state_dict(), "encoder.pos_embedding": torch.zeros(shape)}
    with pytest.raises(WeightsError, match=r"^the pretrained weights do not fit test: .*encoder\.pos_embedding"):
        load_all_but_head(module, state, "test")


def test_tensor_of_another_shape_is_an_error(published: State) -> None:
    wrong = {**published, "features.0.weight": torch.zeros(64, 1, 3, 3)}
    with pytest.raises(WeightsError) as caught:
        load_all_but_head(network(), wrong, "squeezenet1_1 (source)")
    assert str(caught.value) == (
        "the pretrained weights do not fit squeezenet1_1 (source): features.0.weight is 64×1×3×3, not 64×3×3×3"
    )


def test_missing_tensor_is_an_error(published: State) -> None:
    less = {name: value for name, value in published.items() if name != "features.0.bias"}
    with pytest.raises(WeightsError, match=r"do not fit test: features\.0\.bias is missing$"):
        load_all_but_head(network(), less, "test")


def test_unknown_tensor_is_an_error(published: State) -> None:
    with pytest.raises(WeightsError, match=r"do not fit test: unknown.weight is unknown$"):
        load_all_but_head(network(), {**published, "unknown.weight": torch.zeros(1)}, "test")


def test_weights_of_another_architecture_are_an_error_with_three_examples() -> None:
    with pytest.raises(WeightsError, match=r"; .*; .*, and \d+ more$"):
        load_all_but_head(network(architecture="resnet18"), network().state_dict(), "test")


def test_network_is_unchanged_after_an_error(published: State) -> None:
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(WeightsError):
        load_all_but_head(module, {**published, "features.0.weight": torch.zeros(1)}, "test")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_old_weights_without_batch_counters_are_loaded() -> None:
    state = network(10, "resnet18").state_dict()
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    module = network(3, "resnet18")
    load_all_but_head(module, old, "test")
    check_backbone(module, state)


class Code:
    """Creates a folder when unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, write: Callable[[object, Path], object]) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    write({"features.0.weight": torch.zeros(1), "code": Code(trace)}, path)
    with pytest.raises(WeightsError, match=r"^weights\.pth can't be read safely as a state dict: ") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


def test_pickled_module_is_an_error(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"torch\.save\(model\.state_dict\(\), …\)"):
        read_state_dict(tmp_path / "model.pth")


@pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(1), {"weight": [1.0]}, {"state_dict": 3}, 7])
def test_file_without_a_state_dict_is_an_error(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"^weights\.pth holds no state dict: save it with "):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_file_is_an_error(tmp_path: Path, published: State, suffix: str, keep: float) -> None:
    path = save(tmp_path / f"weights{suffix}", published)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(WeightsError, match="can't be read safely as a state dict: "):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@given(
    data=st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04", bytes(8)]).flatmap(
        lambda head: st.binary().map(head.__add__)
    )
)
def test_invalid_bytes_are_an_error(tmp_path_factory: pytest.TempPathFactory, suffix: str, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / f"weights{suffix}"
    path.write_bytes(data)
    with pytest.raises(WeightsError):
        read_state_dict(path)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["any.pth"], "any.pth"),
        (["README.md", "deep/down/any.safetensors"], "any.safetensors"),
        (["resnet18-f37072fd.pth", "resnet50.pth"], "resnet18-f37072fd.pth"),
        (["resnet18.pt", "other.pth", "another.safetensors"], "resnet18.pt"),
        (["._any.pth", "any.pth"], "any.pth"),
    ],
)
def test_weights_file_is_found(tmp_path: Path, names: list[str], chosen: str) -> None:
    assert find_weights_file(touch(tmp_path, *names), "resnet18").name == chosen


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], "none"),
        (["weights.bin", "model.onnx"], "none"),
        (["a.pth", "b.pth"], "a.pth, b.pth"),
        (["resnet18.pth", "resnet18.pt"], "resnet18.pt, resnet18.pth"),
    ],
)
def test_ambiguous_weights_files_are_an_error(tmp_path: Path, names: list[str], found: str) -> None:
    with pytest.raises(WeightsError) as caught:
        find_weights_file(touch(tmp_path, *names), "resnet18")
    assert str(caught.value) == (
        "channel 'pretrained' should hold one state dict (.safetensors, .pth, .pt), or one whose name begins with "
        f"'resnet18'; found {found}"
    )


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache for torch.hub, and a proxy that refuses connections."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    return tmp_path


@pytest.mark.usefixtures("no_network")
def test_unreachable_hub_is_an_error_with_all_alternatives() -> None:
    with pytest.raises(WeightsError) as caught:
        load_pretrained(network(), ARCHITECTURE, channel=None)
    message = str(caught.value)
    assert message.startswith(f"pretrained weights for {ARCHITECTURE} are not available (")
    assert all(way in message for way in ("channel 'pretrained'", f"BAKED_WEIGHTS={ARCHITECTURE}", "torchvision's hub"))
    assert message.endswith("Or train from scratch: pretrained=false")


def test_baked_weights_need_no_network(no_network: Path, published: State) -> None:
    folder = no_network / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    save(folder / Path(models.SqueezeNet1_1_Weights.DEFAULT.url).name, published)
    module = network()
    assert load_pretrained(module, ARCHITECTURE, channel=None) == "torchvision's SqueezeNet1_1_Weights.IMAGENET1K_V1"
    check_backbone(module, published)


@pytest.mark.parametrize("has_cache", [True, False], ids=["cache", "no folder for the cache"])
def test_weights_of_the_hub_go_to_a_folder_that_can_be_written(
    tmp_path: Path, published: State, monkeypatch: pytest.MonkeyPatch, has_cache: bool
) -> None:
    cache, temporary = tmp_path / "torch", tmp_path / "tmp"
    temporary.mkdir()
    if not has_cache:
        # Root may write anywhere but below a file.
        cache.touch()
    content = save(tmp_path / "published.pth", published).read_bytes()
    name = Path(models.SqueezeNet1_1_Weights.DEFAULT.url).name
    # The real file's hash is part of its name.
    monkeypatch.setattr(torch.hub, "HASH_REGEX", re.compile(r"(?!)"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    # It keeps the proxies of the first request.
    monkeypatch.setattr(urllib.request, "_opener", None)
    module = network()
    with running_hub(tmp_path, {name: content}) as hub, monkeypatch.context() as patch:
        for variable, value in {"TORCH_HOME": str(cache), **hub}.items():
            patch.setenv(variable, value)
        load_pretrained(module, ARCHITECTURE, channel=None)
    check_backbone(module, published)
    folder = cache / "hub" / "checkpoints" if has_cache else temporary / f"torch-hub-{os.getuid()}"
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04"])
def test_corrupt_baked_weights_are_an_error(no_network: Path, content: bytes) -> None:
    folder = no_network / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / Path(models.SqueezeNet1_1_Weights.DEFAULT.url).name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"^pretrained weights for {ARCHITECTURE} are not available "):
        load_pretrained(network(), ARCHITECTURE, channel=None)


def test_code_in_baked_weights_is_not_run(no_network: Path, tmp_path: Path) -> None:
    folder = no_network / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"code": Code(tmp_path / "trace")}, folder / Path(models.SqueezeNet1_1_Weights.DEFAULT.url).name)
    with pytest.raises(WeightsError):
        load_pretrained(network(), ARCHITECTURE, channel=None)
    assert not (tmp_path / "trace").exists()


def test_real_imagenet_weights_are_loaded(imagenet_weights: Path) -> None:
    module = network(10, "mobilenet_v2")
    source = load_pretrained(module, "mobilenet_v2", channel=imagenet_weights)
    assert source == "channel 'pretrained', mobilenet_v2_imagenet.pth"
    check_backbone(module, read_state_dict(imagenet_weights / "mobilenet_v2_imagenet.pth"))
