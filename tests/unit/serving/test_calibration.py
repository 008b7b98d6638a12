"""Calibrated probabilities of a served model: the same in every format, with the model's own logits beside them."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from classifier.serving.app import create_app
from classifier.serving.predictor import Predictor
from classifier.serving.settings import ServerSettings
from classifier.serving.telemetry import Telemetry
from support.servers import drawn_photos

TEMPERATURE = 2.5


@pytest.fixture(scope="module")
def calibrated(
    artifact_folder: Path, settings: ServerSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlaskClient]:
    """A client of the same model, calibrated."""
    folder = shutil.copytree(artifact_folder, tmp_path_factory.mktemp("calibrated") / "model")
    document = json.loads((folder / "model.json").read_bytes())
    document["calibration"] = {"temperature": TEMPERATURE, "num_photos": 90, "ece_before": 0.1, "ece_after": 0.02}
    (folder / "model.json").write_text(json.dumps(document), encoding="utf-8")
    predictor = Predictor.open(folder, settings)
    yield create_app(predictor, settings, Telemetry()).test_client()
    predictor.close()


def test_probabilities_are_calibrated_and_logits_are_not(client: FlaskClient, calibrated: FlaskClient) -> None:
    def answer(one: FlaskClient, accept: str) -> bytes:
        headers = {"Accept": accept, "X-Amzn-SageMaker-Custom-Attributes": "top_k=3"}
        return one.post("/invocations", data=drawn_photos(1)[0], content_type="image/jpeg", headers=headers).data

    plain, verbose = (json.loads(answer(one, "application/json;verbose")) for one in (client, calibrated))
    assert verbose["logits"] == plain["logits"]
    assert verbose["predicted_label"] == plain["predicted_label"]
    scaled = np.exp(np.array(plain["logits"]) / TEMPERATURE)
    np.testing.assert_allclose(verbose["probabilities"], scaled / scaled.sum(), rtol=1e-9)
    assert verbose["probability"] == max(verbose["probabilities"]) < plain["probability"]
    listed = [one["probability"] for one in json.loads(answer(calibrated, "application/json"))["predictions"]]
    assert listed == sorted(verbose["probabilities"], reverse=True)
    assert [float(one) for one in answer(calibrated, "text/csv").decode().strip().split(",")[2::3]] == listed
    logits = np.load(io.BytesIO(answer(calibrated, "application/x-npy")))
    np.testing.assert_array_equal(logits[0], np.array(plain["logits"], np.float32))
