"""Manifest of a trained model, ``model.json``: everything but the weights. Imports no torch."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from classifier.errors import ArtifactError
from classifier.vision.calibration import Calibration
from classifier.vision.preprocessing import Preprocessing

MANIFEST_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
# A manifest of 20,000 classes has 3 MB.
MAX_BYTES = 32_000_000
_MAX_SHOWN = 300  # characters of a reason, which may repeat the file's content

Document = TypeVar("Document", bound=BaseModel)
Name = Annotated[str, Field(min_length=1, max_length=1000)]


class ClassLabel(BaseModel):
    """A class: its folder's name, and the label and class name parsed from it."""

    model_config = ConfigDict(frozen=True)

    folder: Name
    label: Name
    class_name: Name


class ModelManifest(BaseModel):
    """Architecture, classes, preprocessing and provenance of a model.

    Contains neither times nor paths, so that the same training writes the same bytes.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    architecture: Name
    classes: Annotated[tuple[ClassLabel, ...], Field(min_length=1)]
    preprocessing: Preprocessing
    # Absent from older artifacts, and where there were too few validation photos.
    calibration: Calibration | None = None
    metrics: dict[str, float] = {}
    hyperparameters: dict[str, Any] = {}
    data_fingerprint: str = ""
    versions: dict[str, str] = {}

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: tuple[ClassLabel, ...]) -> tuple[ClassLabel, ...]:
        for name in ("folder", "label"):
            value, count = Counter(getattr(item, name) for item in classes).most_common(1)[0]
            if count > 1:
                raise ValueError(f"{count} of {len(classes)} classes have the {name} {value!r}")
        return classes

    @property
    def temperature(self) -> float:
        """The temperature of the probabilities; 1 for a model that was not calibrated."""
        return self.calibration.temperature if self.calibration else 1.0

    @classmethod
    def read(cls, folder: Path) -> "ModelManifest":
        """Read the manifest of the artifact in a folder.

        Raises:
            ArtifactError: the manifest is missing or invalid.
        """
        try:
            return read_document(cls, folder / MANIFEST_FILE)
        except FileNotFoundError:
            raise ArtifactError(
                f"{folder} holds no {MANIFEST_FILE}: it is not a model trained with this image"
            ) from None

    def write(self, folder: Path) -> None:
        """Write the manifest into the artifact's folder."""
        (folder / MANIFEST_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_document(kind: type[Document], path: Path) -> Document:
    """Read one of an artifact's JSON files.

    Raises:
        FileNotFoundError: there is no such file.
        ArtifactError: it can't be read, is too large or not what it should be; the message names file and field.
    """
    try:
        return kind.model_validate_json(_read_file(path))
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        # pydantic prefixes the message of a validator's own error.
        reason = str(cause) if isinstance(cause, ValueError) else first["msg"]
        places = [str(path), *([".".join(map(str, first["loc"]))] if first["loc"] else [])]
        raise ArtifactError(": ".join([*places, reason[:_MAX_SHOWN]])) from None


def _read_file(path: Path) -> bytes:
    try:
        # A pipe or a device would block or never end.
        if path.exists() and not path.is_file():
            raise ArtifactError(f"{path} is not a file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ArtifactError(f"{path} can't be read: {(error.strerror or str(error)).lower()}") from None
    if len(content) > MAX_BYTES:
        raise ArtifactError(f"{path} has more than {MAX_BYTES:,} bytes")
    return content
