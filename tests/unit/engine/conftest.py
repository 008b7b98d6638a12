"""A small artifact with random weights, and its graph."""

from pathlib import Path

import pytest

from support.servers import export_artifact, write_artifact


@pytest.fixture(scope="session")
def artifact_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact without a graph; read only."""
    return write_artifact(tmp_path_factory.mktemp("artifact") / "model")


@pytest.fixture(scope="session")
def exported_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with its graph, served in fp32; read only."""
    return export_artifact(write_artifact(tmp_path_factory.mktemp("exported") / "model"), only_fp32=True)
