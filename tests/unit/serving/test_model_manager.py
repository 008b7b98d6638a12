"""The multi-model API of the platform, on real models."""

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from flask.testing import FlaskClient

from classifier.serving.app import create_multi_model_app
from classifier.serving.asgi import Admission
from classifier.serving.codec import Prediction
from classifier.serving.errors import BusyError
from classifier.serving.model_manager import ModelManager
from classifier.serving.predictor import Predictor
from classifier.serving.settings import ServerSettings
from classifier.serving.telemetry import Telemetry
from support.servers import drawn_photos


class Memory:
    """The free memory in bytes, as a test sets it."""

    def __init__(self) -> None:
        self.free = 1 << 40


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def models(tmp_path: Path, artifact_folder: Path) -> Path:
    """Three model folders in the platform's layout, and one without a model."""
    for name in ("first", "second", "third"):
        shutil.copytree(artifact_folder, tmp_path / "models" / name / "model")
    (tmp_path / "models" / "empty" / "model").mkdir(parents=True)
    return tmp_path / "models"


@pytest.fixture
def manager(models: Path, settings: ServerSettings, memory: Memory) -> Iterator[ModelManager]:
    manager = ModelManager(models, lambda _, folder: Predictor.open(folder, settings), lambda: memory.free)
    yield manager
    for one in manager.all():
        manager.unload(one.name)


@pytest.fixture
def client(manager: ModelManager, settings: ServerSettings) -> FlaskClient:
    return create_multi_model_app(manager, settings, Telemetry(), Admission()).test_client()


def load(client: FlaskClient, name: str, url: Path) -> tuple[int, dict[str, Any]]:
    body = json.dumps({"model_name": name, "url": str(url)})
    response = client.post("/models", data=body, content_type="application/json")
    return response.status_code, response.get_json()


def invoke(client: FlaskClient, name: str) -> int:
    return client.post(f"/models/{name}/invoke", data=drawn_photos(1)[0], content_type="image/jpeg").status_code


def names(client: FlaskClient) -> list[str]:
    return [one["modelName"] for one in client.get("/models").get_json()["models"]]


def test_loaded_model_answers(client: FlaskClient, models: Path) -> None:
    url = models / "first" / "model"
    assert load(client, "a/b c", url) == (200, {"modelName": "a/b c", "modelUrl": str(url)})
    assert client.get("/models/a/b c").get_json() == {"modelName": "a/b c", "modelUrl": str(url)}
    response = client.post("/models/a/b c/invoke", data=drawn_photos(1)[0], content_type="image/jpeg")
    assert response.status_code == 200
    assert "predicted_label" in response.get_json()
    assert client.get("/ping").status_code == 200
    assert client.delete("/models/a/b c").status_code == 200
    assert names(client) == []


def test_server_without_models_is_healthy(client: FlaskClient) -> None:
    assert client.get("/ping").status_code == 200
    assert client.get("/models").get_json() == {"models": []}


def test_name_can_be_loaded_only_once(client: FlaskClient, models: Path) -> None:
    load(client, "first", models / "first" / "model")
    assert load(client, "first", models / "first" / "model")[0] == 409


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/invoke")])
def test_unknown_model_is_not_found(client: FlaskClient, method: str, path: str) -> None:
    response = client.open(f"/models/first{path}", method=method)
    assert (response.status_code, response.get_json()["error"]["type"]) == (404, "UnknownModelError")


@pytest.mark.parametrize("url", ["/", "/etc", "first/../../..", "../models-of-others"])
def test_folder_outside_the_root_is_rejected(client: FlaskClient, models: Path, url: str) -> None:
    assert load(client, "evil", models / url)[0] == 400


def test_link_out_of_the_root_is_rejected(client: FlaskClient, models: Path, artifact_folder: Path) -> None:
    (models / "link").symlink_to(artifact_folder)
    assert load(client, "evil", models / "link")[0] == 400


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("{models}/first\0/model", "is no path: embedded null"),
        ("{models}/" + "m" * 6000, "is not a folder"),
        ("{models}/" + "m/" * 3000, "is not a folder"),
        ("{models}/\ud800", "not JSON"),
        ("{models}/circle/model", "is no path: symlink loop"),
        ("{models}/first/model/model.json", "is not a folder"),
        ("{models}/first/model/model.json/x", "is not a folder"),
        ("{models}/missing/model", "is not a folder"),
        ("first/model", "should be an absolute path below {models}"),
        ("file://{models}/first/model", "should be an absolute path below {models}"),
    ],
)
def test_url_that_is_no_folder_is_rejected_with_the_reason(
    client: FlaskClient, models: Path, monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    (models / "circle").symlink_to(models / "circle")
    monkeypatch.chdir(models)
    response = client.post("/models", json={"model_name": "m", "url": url.format(models=models)})
    error = response.get_json()["error"]
    assert (response.status_code, error["type"]) == (400, "RequestError")
    assert reason.format(models=models) in error["message"]
    assert len(error["message"]) < 600
    assert names(client) == []


def test_folder_without_a_model_is_rejected(client: FlaskClient, models: Path) -> None:
    status, document = load(client, "empty", models / "empty" / "model")
    assert status == 400
    assert (document["error"]["type"], "model.json" in document["error"]["message"]) == ("ArtifactError", True)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"model_name": "a"}', b'{"model_name": 1, "url": "/"}'])
def test_malformed_load_request_is_rejected(client: FlaskClient, body: bytes) -> None:
    assert client.post("/models", data=body, content_type="application/json").status_code == 400


def test_short_memory_is_reported_and_unloads_nothing(client: FlaskClient, models: Path, memory: Memory) -> None:
    for name in ("first", "second"):
        load(client, name, models / name / "model")
    memory.free = 7 << 20
    status, document = load(client, "third", models / "third" / "model")
    assert (status, document["error"]["type"]) == (507, "OutOfMemoryError")
    assert re.search(r"'third' needs about \d+ MiB of memory and 7 are free", document["error"]["message"])
    assert names(client) == ["first", "second"]
    assert invoke(client, "first") == 200
    assert client.delete("/models/second").status_code == 200
    memory.free = 1 << 40
    assert load(client, "third", models / "third" / "model")[0] == 200


def test_short_gpu_memory_is_reported(models: Path, settings: ServerSettings, memory: Memory) -> None:
    gpu = Memory()
    manager = ModelManager(
        models, lambda _, folder: Predictor.open(folder, settings), lambda: memory.free, lambda: gpu.free
    )
    client = create_multi_model_app(manager, settings, Telemetry(), Admission()).test_client()
    gpu.free = 7 << 20
    status, document = load(client, "first", models / "first" / "model")
    assert (status, document["error"]["type"]) == (507, "OutOfMemoryError")
    assert re.search(r"'first' needs about \d+ MiB of GPU memory and 7 are free", document["error"]["message"])
    gpu.free = 1 << 40
    assert load(client, "first", models / "first" / "model")[0] == 200
    manager.unload("first")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 98.00 MiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_model_that_did_not_fit_after_all_is_reported(
    models: Path, settings: ServerSettings, memory: Memory, error: RuntimeError
) -> None:
    def open_model(name: str, folder: Path) -> Predictor:
        if name == "large":
            raise error
        return Predictor.open(folder, settings)

    manager = ModelManager(models, open_model, lambda: memory.free)
    client = create_multi_model_app(manager, settings, Telemetry(), Admission()).test_client()
    status, document = load(client, "large", models / "first" / "model")
    assert (status, document["error"]["type"]) == (507, "OutOfMemoryError")
    assert document["error"]["message"] == "'large' did not fit into memory; unload other models first"
    assert load(client, "small", models / "first" / "model")[0] == 200
    manager.unload("small")


def test_second_of_two_concurrent_loads_conflicts(client: FlaskClient, models: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        loads = [threads.submit(load, client, "first", models / "first" / "model") for _ in range(2)]
    assert sorted(one.result()[0] for one in loads) == [200, 409]


def test_model_that_is_being_loaded_is_unknown_and_delays_no_other(
    models: Path, settings: ServerSettings, memory: Memory
) -> None:
    opening, opened = threading.Event(), threading.Event()

    def open_model(_name: str, folder: Path) -> Predictor:
        if folder.parent.name == "second":
            opening.set()
            assert opened.wait(60)
        return Predictor.open(folder, settings)

    manager = ModelManager(models, open_model, lambda: memory.free)
    client = create_multi_model_app(manager, settings, Telemetry()).test_client()
    load(client, "first", models / "first" / "model")
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(load, client, "second", models / "second" / "model")
        assert opening.wait(60)
        answers = invoke(client, "second"), invoke(client, "first"), names(client)
        opened.set()
        assert loading.result()[0] == 200
    assert answers == (404, 200, ["first"])
    assert invoke(client, "second") == 200
    for name in ("first", "second"):
        manager.unload(name)


def test_requests_of_a_model_that_is_unloaded_are_answered(
    client: FlaskClient, models: Path, manager: ModelManager
) -> None:
    load(client, "first", models / "first" / "model")
    with ThreadPoolExecutor(1) as threads:
        with manager.use("first") as model:
            unloading = threads.submit(manager.unload, "first")
            while names(client):
                time.sleep(0.01)
            assert invoke(client, "first") == 404
            assert isinstance(next(model.predictor.predict(drawn_photos(1))), Prediction)
            assert not unloading.done()
        assert unloading.result() is model
    with pytest.raises(BusyError):
        next(model.predictor.predict(drawn_photos(1)))


def test_long_lists_are_paginated(
    client: FlaskClient, models: Path, manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("classifier.serving.app.MODELS_PER_PAGE", 2)
    for name in ("first", "second", "third"):
        manager.load(name, str(models / name / "model"))
    page = client.get("/models").get_json()
    assert ([one["modelName"] for one in page["models"]], page["nextPageToken"]) == (["first", "second"], "second")
    rest = client.get("/models", query_string={"next_page_token": page["nextPageToken"]}).get_json()
    assert [one["modelName"] for one in rest["models"]] == ["third"]
    assert "nextPageToken" not in rest
