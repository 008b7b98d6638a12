"""The platform's folders under one root, ``/opt/ml`` or the folder that replaces it outside of a container."""

import os
from dataclasses import dataclass
from pathlib import Path

OPT_ML = Path("/opt/ml")


@dataclass(frozen=True)
class Paths:
    """``/opt/ml`` and the folders below it."""

    base: Path = OPT_ML

    @classmethod
    def from_environment(cls) -> "Paths":
        """The platform's root, or the folder that ``SAGEMAKER_BASE_DIR`` names."""
        return cls(Path(os.environ.get("SAGEMAKER_BASE_DIR", OPT_ML)))

    def relocate(self, path: Path) -> Path:
        """A path as the platform writes it, below this root if it is below ``/opt/ml``; any other path unchanged."""
        return self.base / path.relative_to(OPT_ML) if path.is_relative_to(OPT_ML) else path

    @property
    def config(self) -> Path:
        return self.base / "input" / "config"

    def channel(self, name: str) -> Path:
        return self.base / "input" / "data" / name

    @property
    def model(self) -> Path:
        return self.base / "model"

    @property
    def output_data(self) -> Path:
        return self.base / "output" / "data"

    @property
    def tensorboard(self) -> Path:
        return self.base / "output" / "tensorboard"

    @property
    def failure(self) -> Path:
        return self.base / "output" / "failure"
