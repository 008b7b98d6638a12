"""The platform's folders, under one root."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """``/opt/ml`` and what lies in it."""

    base: Path = Path("/opt/ml")

    @classmethod
    def from_environment(cls) -> "Paths":
        """The platform's root, or the folder that ``SAGEMAKER_BASE_DIR`` names."""
        return cls(Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")))

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
