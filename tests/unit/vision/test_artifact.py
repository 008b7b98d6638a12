"""Saving and loading of artifacts, and errors in them."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from classifier.errors import ArtifactError
from classifier.vision import artifact
from classifier.vision.artifact import Classifier
from classifier.vision.manifest import MANIFEST_FILE, WEIGHTS_FILE, ClassLabel, ModelManifest
from classifier.vision.models import build
from classifier.vision.preprocessing import Preprocessing

CLASSES = tuple(ClassLabel(folder=f"{n:03}.{name}", label=f"{n:03}", class_name=name) for n, name in enumerate("abc"))
PREPROCESSING = Preprocessing(resize=36, crop=32, interpolation="bicubic", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))


def manifest_of(architecture: str, **others: object) -> ModelManifest:
    return ModelManifest.model_validate(
        {
            "architecture": architecture,
            "classes": CLASSES,
            "preprocessing": PREPROCESSING,
            "metrics": {"validation:accuracy": 0.75},
            "hyperparameters": {"epochs": 3, "lr": 1e-3, "num_workers": "auto"},
            "data_fingerprint": "00ff",
            "versions": {"torch": torch.__version__},
            **others,
        }
    )


def network(architecture: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(architecture, num_classes=len(CLASSES), image_size=PREPROCESSING.crop)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact of the smallest architecture."""
    artifact.save(tmp_path / "model", network("squeezenet1_1"), manifest_of("squeezenet1_1"))
    return tmp_path / "model"


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "mnasnet0_5", "squeezenet1_1"])
def test_loaded_model_computes_the_same_logits(tmp_path: Path, architecture: str) -> None:
    module = Classifier(network(architecture), PREPROCESSING)
    pixels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    module.train()
    module(pixels)  # batch statistics are part of what is saved
    module.eval()
    artifact.save(tmp_path, module.network, manifest_of(architecture))
    loaded, manifest = artifact.load(tmp_path)
    assert manifest == manifest_of(architecture)
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(loaded(pixels), module(pixels))


def test_pixels_are_normalized_by_mean_and_std() -> None:
    pixels = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    normalized = Classifier(nn.Identity(), PREPROCESSING)(pixels)
    for channel, (mean, std) in enumerate(zip(PREPROCESSING.mean, PREPROCESSING.std, strict=True)):
        expected = (pixels[:, channel] / 255 - mean) / std
        torch.testing.assert_close(normalized[:, channel], expected)
    assert normalized.is_contiguous(memory_format=torch.channels_last)


def test_uint8_and_float_pixels_are_equivalent() -> None:
    module = Classifier(nn.Identity(), PREPROCESSING)
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(module(pixels), module(pixels.float()))


def test_same_weights_and_manifest_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        artifact.save(tmp_path / name, network("squeezenet1_1"), manifest_of("squeezenet1_1"))
    artifact.save(tmp_path / "other", network("squeezenet1_1", seed=1), manifest_of("squeezenet1_1"))
    first, second, other = [
        [(tmp_path / name / file).read_bytes() for file in (WEIGHTS_FILE, MANIFEST_FILE)]
        for name in ("first", "second", "other")
    ]
    assert first == second
    assert first[0] != other[0]
    assert first[1] == other[1]


def test_memory_format_does_not_change_the_bytes(tmp_path: Path) -> None:
    plain = network("squeezenet1_1")
    artifact.save(tmp_path / "plain", plain, manifest_of("squeezenet1_1"))
    artifact.save(tmp_path / "last", Classifier(plain, PREPROCESSING).network, manifest_of("squeezenet1_1"))
    assert (tmp_path / "plain" / WEIGHTS_FILE).read_bytes() == (tmp_path / "last" / WEIGHTS_FILE).read_bytes()


def test_artifact_is_replaced_completely_and_consists_of_two_files(folder: Path) -> None:
    artifact.save(folder, network("squeezenet1_1", seed=1), manifest_of("squeezenet1_1"))
    assert {path.name for path in folder.iterdir()} == {WEIGHTS_FILE, MANIFEST_FILE}
    expected = network("squeezenet1_1", seed=1).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in load_file(folder / WEIGHTS_FILE).items())


def test_weights_are_readable_by_other_users(folder: Path) -> None:
    assert (folder / WEIGHTS_FILE).stat().st_mode & 0o777 == 0o644


def test_manifest_without_classes_is_an_artifact_error(folder: Path) -> None:
    content = json.loads((folder / MANIFEST_FILE).read_bytes())
    (folder / MANIFEST_FILE).write_text(json.dumps({**content, "classes": []}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"{MANIFEST_FILE}: classes: "):
        ModelManifest.read(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_metrics_are_saved_as_valid_json(tmp_path: Path, value: float) -> None:
    manifest = manifest_of("squeezenet1_1", metrics={"validation:loss": value})
    artifact.save(tmp_path, network("squeezenet1_1"), manifest)
    read = ModelManifest.read(tmp_path).metrics["validation:loss"]
    assert read == value or (math.isnan(read) and math.isnan(value))

    def fail(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    json.loads((tmp_path / MANIFEST_FILE).read_text(encoding="utf-8"), parse_constant=fail)


def test_class_names_in_any_language_are_read_back(tmp_path: Path) -> None:
    name = 'Größe 犬 "quoted"'
    manifest = manifest_of("resnet18", classes=[ClassLabel(folder=name, label=name, class_name=name)])
    manifest.write(tmp_path)
    assert ModelManifest.read(tmp_path) == manifest


@pytest.mark.parametrize("name", [MANIFEST_FILE, WEIGHTS_FILE])
def test_missing_file_is_an_artifact_error(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"^{folder} holds no {name}"):
        artifact.load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"{}"])
def test_unreadable_manifest_is_an_artifact_error(folder: Path, content: bytes) -> None:
    (folder / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"^{folder / MANIFEST_FILE}: ") as caught:
        artifact.load(folder)
    assert ": : " not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("architecture", "resnet_18"),
        ("architecture", "resnet18"),
        ("architecture", None),
        ("classes", []),
        ("classes", [{"folder": "a", "label": "a", "class_name": "a"}]),
        ("classes", [{"folder": "a"}]),
        ("preprocessing", {}),
        ("preprocessing", {"resize": 0, "crop": 32}),
        ("preprocessing", {"resize": 36, "crop": -1}),
        ("preprocessing", {"resize": 16, "crop": 32}),
        ("preprocessing", {"resize": 36, "crop": 10**6}),
        ("preprocessing", {"mean": [0.5]}),
        ("preprocessing", {"std": [0.0, 1.0, 1.0]}),
        ("preprocessing", {"interpolation": "nearest"}),
        ("metrics", {"validation:loss": "low"}),
    ],
)
def test_invalid_manifest_is_an_artifact_error(folder: Path, place: str, value: object) -> None:
    manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    manifest[place] = value
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    if place == "preprocessing" and value == {}:
        assert artifact.load(folder)[1].preprocessing == Preprocessing()
        return
    with pytest.raises(ArtifactError):
        artifact.load(folder)


def write_field(folder: Path, path: str, value: object) -> None:
    """Replace one field of a manifest, by its path in the document."""
    document = json.loads((folder / MANIFEST_FILE).read_bytes())
    *parents, last = path.split(".")
    place = document
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[last] = value
    (folder / MANIFEST_FILE).write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        *(("preprocessing.std", [1.0, value, 1.0], "preprocessing: std=") for value in (math.inf, math.nan, 0, -1)),
        ("preprocessing.std", ["Infinity", 1.0, 1.0], "preprocessing: std="),
        ("preprocessing.std", [1.0, 1.0], "preprocessing.std.2: "),
        *(
            ("preprocessing.mean", [0.5, 0.5, value], "preprocessing: mean=")
            for value in (math.inf, -math.inf, math.nan)
        ),
        ("preprocessing.crop", 10**9, "preprocessing: 1 ≤ crop=1000000000 ≤ resize=36 ≤ 4096 should hold"),
        ("preprocessing.resize", 10**9, "preprocessing: 1 ≤ crop=32 ≤ resize=1000000000 ≤ 4096 should hold"),
        ("preprocessing.crop", 10**400, "preprocessing"),
        ("classes.2.label", "000", "classes: 2 of 3 classes have the label '000'"),
        ("classes.2.folder", "000.a", "classes: 2 of 3 classes have the folder '000.a'"),
        ("classes.1.label", "", "classes.1.label: "),
        ("classes.1.label", "x" * 2000, "classes.1.label: "),
        ("architecture", "r" * 10**6, "architecture: "),
        ("calibration", {"temperature": 1.0}, "calibration.num_photos: "),
        *(
            (
                "calibration",
                {"temperature": value, "num_photos": 90, "ece_before": 0, "ece_after": 0},
                "calibration.temp",
            )
            for value in (0, -1, math.inf, math.nan, 21)
        ),
    ],
)
def test_error_names_the_invalid_field(folder: Path, path: str, value: object, reason: str) -> None:
    write_field(folder, path, value)
    with pytest.raises(ArtifactError) as caught:
        ModelManifest.read(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder / MANIFEST_FILE}: {reason}")
    assert len(message) < len(str(folder)) + 400
    assert "\n" not in message


@pytest.mark.parametrize("name", [MANIFEST_FILE, WEIGHTS_FILE])
def test_directory_in_place_of_a_file_is_an_artifact_error(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(ArtifactError, match=f"^{folder / name} "):
        artifact.load(folder)


def test_pipe_or_device_in_place_of_the_manifest_is_an_artifact_error(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink()
    (folder / MANIFEST_FILE).symlink_to("/dev/zero")
    with pytest.raises(ArtifactError, match="is not a file"):
        ModelManifest.read(folder)
    (folder / MANIFEST_FILE).unlink()
    os.mkfifo(folder / MANIFEST_FILE)
    with pytest.raises(ArtifactError, match="is not a file"):
        ModelManifest.read(folder)


def test_manifest_that_is_too_large_is_not_read(folder: Path) -> None:
    with (folder / MANIFEST_FILE).open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(ArtifactError, match="has more than 32,000,000 bytes"):
        ModelManifest.read(folder)


def test_link_to_itself_in_place_of_the_manifest_is_an_artifact_error(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink()
    (folder / MANIFEST_FILE).symlink_to(folder / MANIFEST_FILE)
    with pytest.raises(ArtifactError, match="can't be read: "):
        ModelManifest.read(folder)


@pytest.mark.parametrize("values", [{"preprocessing": {"std": [math.inf] * 3}}, {"classes": [CLASSES[0], CLASSES[0]]}])
def test_training_can_not_write_an_invalid_manifest(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        manifest_of("resnet18", **values)


def test_manifest_of_an_older_version_has_temperature_1(folder: Path) -> None:
    document = json.loads((folder / MANIFEST_FILE).read_bytes())
    del document["calibration"]
    (folder / MANIFEST_FILE).write_text(json.dumps(document), encoding="utf-8")
    assert ModelManifest.read(folder).temperature == 1


def test_truncated_weights_are_an_artifact_error(folder: Path) -> None:
    data = (folder / WEIGHTS_FILE).read_bytes()
    for length in (0, 4, len(data) // 2, len(data) - 1):
        (folder / WEIGHTS_FILE).write_bytes(data[:length])
        with pytest.raises(ArtifactError, match=f"^{folder / WEIGHTS_FILE}: "):
            artifact.load(folder)


def test_pickled_weights_are_an_artifact_error(folder: Path) -> None:
    torch.save(network("squeezenet1_1").state_dict(), folder / WEIGHTS_FILE)
    with pytest.raises(ArtifactError, match=f"^{folder / WEIGHTS_FILE}: "):
        artifact.load(folder)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_weights_that_do_not_match_the_manifest_are_an_artifact_error(folder: Path, change: str) -> None:
    state = load_file(folder / WEIGHTS_FILE)
    name = "classifier.1.bias"
    match change:
        case "missing":
            del state[name]
        case "unknown":
            state["unknown"] = torch.zeros(1)
        case "shape":
            state[name] = torch.zeros(7)
    save_file(state, folder / WEIGHTS_FILE)
    with pytest.raises(ArtifactError, match=f"^{folder / WEIGHTS_FILE}: "):
        artifact.load(folder)
