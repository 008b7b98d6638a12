"""The platform's folders below one root: ``/opt/ml``, or the folder that replaces it outside a container."""

import os
from dataclasses import dataclass
from pathlib import Path

OPT_ML = Path("/opt/ml")


@dataclass(frozen=True)
class Paths:
    """The root folder and the folders below it."""

    base: Path = OPT_ML

    @classmethod
    def from_environment(cls) -> "Paths":
        """The paths below ``$SAGEMAKER_BASE_DIR``, or below ``/opt/ml`` if it is not set."""
        return cls(Path(os.environ.get("SAGEMAKER_BASE_DIR", OPT_ML)))

    def relocate(self, path: Path) -> Path:
        """Map a path below ``/opt/ml``, as the platform writes it, to this root; return any other path unchanged."""
        return self.base / path.relative_to(OPT_ML) if path.is_relative_to(OPT_ML) else path

    @property
    def config(self) -> Path:
        """The platform's JSON files."""
        return self.base / "input" / "config"

    def channel(self, name: str) -> Path:
        """The folder of a channel's data."""
        return self.base / "input" / "data" / name

    @property
    def model(self) -> Path:
        """The artifact, which the platform packs into ``model.tar.gz``."""
        return self.base / "model"

    @property
    def output_data(self) -> Path:
        """Reports and tables, which the platform packs into ``output.tar.gz``."""
        return self.base / "output" / "data"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.base / "output" / "tensorboard"

    @property
    def failure(self) -> Path:
        """The file whose text becomes the job's ``FailureReason``."""
        return self.base / "output" / "failure"
