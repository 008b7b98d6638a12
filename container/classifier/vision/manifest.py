"""Manifest of a trained model, ``model.json``: everything but the weights. Imports no torch."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from classifier.errors import ArtifactError
from classifier.vision.preprocessing import Preprocessing

MANIFEST_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"


class ClassLabel(BaseModel):
    """A class: its folder's name, and the label and class name parsed from it."""

    model_config = ConfigDict(frozen=True)

    folder: str
    label: str
    class_name: str


class ModelManifest(BaseModel):
    """Architecture, classes, preprocessing and provenance of a model.

    Contains neither times nor paths, so that the same training writes the same bytes.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    architecture: str
    classes: Annotated[tuple[ClassLabel, ...], Field(min_length=1)]
    preprocessing: Preprocessing
    metrics: dict[str, float] = {}
    hyperparameters: dict[str, Any] = {}
    data_fingerprint: str = ""
    versions: dict[str, str] = {}

    @classmethod
    def read(cls, folder: Path) -> "ModelManifest":
        """Read the manifest of the artifact in a folder.

        Raises:
            ArtifactError: the manifest is missing or invalid.
        """
        path = folder / MANIFEST_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise ArtifactError(
                f"{folder} holds no {MANIFEST_FILE}: it is not a model trained with this image"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ": ".join([f"{path}", ".".join(map(str, first["loc"]))] if first["loc"] else [f"{path}"])
            raise ArtifactError(f"{place}: {first['msg']}") from None

    def write(self, folder: Path) -> None:
        """Write the manifest into the artifact's folder."""
        (folder / MANIFEST_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
