"""``model.json``: all that there is to know about a trained model but its weights. Imports no torch."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from classifier.errors import ArtifactError
from classifier.vision.preprocessing import Preprocessing

MANIFEST_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"


class ClassLabel(BaseModel):
    """One class: its folder, and the label and the name that the folder's name holds."""

    model_config = ConfigDict(frozen=True)

    folder: str
    label: str
    class_name: str


class ModelManifest(BaseModel):
    """What a model expects, and what its numbers mean. Holds no time and no path: same training, same bytes."""

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
        """The manifest in an artifact's folder.

        Raises:
            ArtifactError: there is none, or it does not say what a manifest must.
        """
        path = folder / MANIFEST_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise ArtifactError(
                f"{folder} holds no {MANIFEST_FILE}: it is not a model that this image trained"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ": ".join([f"{path}", ".".join(map(str, first["loc"]))] if first["loc"] else [f"{path}"])
            raise ArtifactError(f"{place}: {first['msg']}") from None

    def write(self, folder: Path) -> None:
        (folder / MANIFEST_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
