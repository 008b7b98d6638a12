"""The routes with every request type, response type and error, on a real model."""

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from classifier.errors import ArtifactError, ConfigError, DataError, ImageError, MediaTypeError, WeightsError
from classifier.serving import codec, log
from classifier.serving.app import STATUS, create_app
from classifier.serving.asgi import NUM_RECEIVED, REQUEST_ERROR, Admission
from classifier.serving.errors import BusyError, TooSlowError
from classifier.serving.predictor import Predictor
from classifier.serving.settings import ServerSettings
from classifier.serving.telemetry import SINGLE_MODEL, Telemetry
from classifier.vision import artifact
from support.drawing import draw_photo, encode
from support.servers import SIDE, drawn_photos

JPEG = "image/jpeg"
JSON = "application/json"
NPY = "application/x-npy"


def invoke(client: FlaskClient, body: bytes, content_type: str = JPEG, **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/invocations", data=body, content_type=content_type, headers=named)


def instances(*photos: bytes) -> bytes:
    return json.dumps({"instances": [{"image": base64.b64encode(one).decode()} for one in photos]}).encode()


def to_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def from_npy(response: TestResponse) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.load(io.BytesIO(response.data), allow_pickle=False)


def error_type(response: TestResponse) -> tuple[int, str]:
    """The status and the type of an error response, which all have the same form."""
    document = response.get_json()
    assert list(document) == ["error"]
    assert sorted(document["error"]) == ["message", "type"]
    assert "Traceback" not in response.text
    return response.status_code, document["error"]["type"]


def test_served_logits_equal_the_artifacts(client: FlaskClient, artifact_folder: Path) -> None:
    classifier, manifest = artifact.load(artifact_folder)
    for photo in drawn_photos(4):
        pixels = torch.from_numpy(manifest.preprocessing.pixels_of(photo).copy()).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = classifier(pixels).numpy()
        np.testing.assert_allclose(from_npy(invoke(client, photo, accept=NPY)), expected, atol=1e-4)


def test_every_request_type_gives_the_same_logits(client: FlaskClient, predictor: Predictor) -> None:
    preprocessing = predictor.manifest.preprocessing
    photo = drawn_photos(1)[0]
    pixels = preprocessing.pixels_of(photo)
    tensor = (pixels.transpose(2, 0, 1) / np.float32(255) - np.reshape(preprocessing.mean, (3, 1, 1))) / np.reshape(
        preprocessing.std, (3, 1, 1)
    )
    expected = from_npy(invoke(client, photo, accept=NPY))
    for body, kind in [
        (photo, "application/octet-stream"),
        (instances(photo), JSON),
        (json.dumps({"image": base64.b64encode(photo).decode()}).encode(), JSON),
        (json.dumps({"image": base64.b64encode(photo).decode()}).encode() + b"\n", "application/jsonlines"),
        (to_npy(pixels[None]), NPY),
        (to_npy(pixels), NPY),
        (to_npy(np.asfortranarray(pixels)), NPY),
        (to_npy(tensor[None].astype(np.float32)), NPY),
        (to_npy(tensor[None].astype(np.float64)), NPY),
    ]:
        np.testing.assert_allclose(from_npy(invoke(client, body, kind, accept=NPY)), expected, atol=1e-4)


def test_pixels_of_another_size_are_resized_as_a_photo(client: FlaskClient) -> None:
    image = draw_photo(200, 150)
    expected = from_npy(invoke(client, encode(image, "PNG"), "image/png", accept=NPY))
    np.testing.assert_allclose(
        from_npy(invoke(client, to_npy(np.asarray(image)), NPY, accept=NPY)), expected, atol=1e-4
    )


def test_response_lists_the_most_probable_classes(client: FlaskClient) -> None:
    document = invoke(client, drawn_photos(1)[0]).get_json()
    places = document["predictions"]
    assert {"predicted_label", "class_name", "probability", "predictions"} == set(document)
    assert document["predicted_label"] == places[0]["label"]
    assert document["class_name"] == places[0]["class_name"]
    assert [one["probability"] for one in places] == sorted((one["probability"] for one in places), reverse=True)
    assert sum(one["probability"] for one in places) == pytest.approx(1)
    assert sorted((one["label"], one["class_name"]) for one in places) == [
        ("000", "cross"),
        ("001", "disc"),
        ("002", "square"),
    ]


def test_top_k_is_read_from_the_custom_attributes(client: FlaskClient) -> None:
    photo = drawn_photos(1)[0]
    for attributes, num_places in [("top_k=1", 1), ("trace=a; top_k = 2", 2), ("top_k=100", 3), ("trace=7", 3)]:
        document = invoke(client, photo, X_Amzn_SageMaker_Custom_Attributes=attributes).get_json()
        assert len(document["predictions"]) == num_places
    for attributes in ("top_k=0", "top_k=many", "top_k=-1", "top_k=" + "9" * 1000):
        response = invoke(client, photo, X_Amzn_SageMaker_Custom_Attributes=attributes)
        assert error_type(response) == (400, "RequestError")


def test_verbose_response_has_every_class(client: FlaskClient) -> None:
    photo = drawn_photos(1)[0]
    document = invoke(client, photo, accept="application/json;verbose").get_json()
    assert document["labels"] == ["000", "001", "002"]
    assert document["class_names"] == ["cross", "disc", "square"]
    logits = from_npy(invoke(client, photo, accept=NPY))[0]
    np.testing.assert_allclose(document["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(document["probabilities"], np.exp(logits) / np.exp(logits).sum(), atol=1e-5)


def test_several_photos_are_answered_in_order(client: FlaskClient) -> None:
    photos = drawn_photos(5)
    single = [invoke(client, photo).get_json() for photo in photos]
    batch = invoke(client, instances(*photos), JSON)
    assert _rounded(batch.get_json()) == _rounded({"predictions": single})
    lines = invoke(client, instances(*photos), JSON, accept="application/jsonlines")
    assert lines.content_type == "application/jsonlines"
    assert _rounded([json.loads(line) for line in lines.text.splitlines()]) == _rounded(single)
    table = invoke(client, instances(*photos), JSON, accept="text/csv")
    assert table.content_type == "text/csv; charset=utf-8"
    rows = list(csv.reader(io.StringIO(table.text)))
    assert [row[:2] for row in rows] == [[one["predicted_label"], one["class_name"]] for one in single]
    assert {len(row) for row in rows} == {9}


def _rounded(document: Any) -> Any:
    return json.loads(json.dumps(document), parse_float=lambda text: round(float(text), 4))


def test_unreadable_photo_gets_its_own_error(client: FlaskClient) -> None:
    good = drawn_photos(1)[0]
    document = invoke(client, instances(good, b"no photo", good[:200], good), JSON).get_json()
    found = [one.get("error", {}).get("type", one.get("predicted_label")) for one in document["predictions"]]
    assert found[0] == found[3] != "ImageError"
    assert found[1] == found[2] == "ImageError"
    for accept in ("text/csv", NPY):
        response = invoke(client, instances(good, b"no photo"), JSON, accept=accept)
        assert error_type(response) == (422, "ImageError")
        assert "instance 1" in response.text
    assert error_type(invoke(client, instances(b"no photo", b""), JSON)) == (422, "ImageError")


def test_more_json_lines_than_instances_are_answered_with_errors_in_place(
    client: FlaskClient, settings: ServerSettings
) -> None:
    photos = drawn_photos(3)
    lines = [json.dumps({"image": base64.b64encode(photos[index % 3]).decode()}) for index in range(20)]
    assert len(lines) > settings.max_instances * 2
    lines[1:1] = ["{", "[1]", '{"image": "?"}']
    response = invoke(client, "\n".join(lines).encode(), "application/jsonlines", accept="application/jsonlines")
    answers = [json.loads(line) for line in response.text.splitlines()]
    single = [invoke(client, photo).get_json() for photo in photos]
    assert [one["error"]["type"] for one in answers[1:4]] == ["RequestError", "RequestError", "ImageError"]
    assert _rounded(answers[:1] + answers[4:]) == _rounded([single[index % 3] for index in range(20)])
    assert error_type(invoke(client, b"{\n[1]", "application/jsonlines")) == (400, "RequestError")


def test_response_is_limited(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_RESPONSE", 2000)
    photos = drawn_photos(8)
    assert invoke(client, instances(photos[0]), JSON).status_code == 200
    for accept in (JSON, "application/jsonlines"):
        response = invoke(client, instances(*photos), JSON, accept=accept)
        assert error_type(response) == (413, "TooLargeError")


def _bomb() -> bytes:
    data = encode(Image.new("1", (8, 8)), "PNG")
    return data[:16] + (100_000).to_bytes(4) * 2 + data[24:]


@pytest.mark.parametrize(
    ("body", "content_type", "headers", "expected"),
    [
        (b"", JPEG, {}, (422, "ImageError")),
        (b"no photo", JPEG, {}, (422, "ImageError")),
        (encode(draw_photo())[:300], JPEG, {}, (422, "ImageError")),
        (_bomb(), "image/png", {}, (422, "ImageError")),
        (encode(Image.new("RGB", (3000, 2000)), "PNG"), "image/png", {}, (422, "ImageTooLargeError")),
        (b"x", "text/plain", {}, (415, "MediaTypeError")),
        (b"x", "", {}, (422, "ImageError")),
        (b"x", JPEG, {"Content_Encoding": "gzip"}, (415, "MediaTypeError")),
        (b"no photo", JPEG, {"accept": "text/html"}, (406, "AcceptError")),
        (bytes(600_000), JPEG, {}, (413, "TooLargeError")),
        (b"{", JSON, {}, (400, "RequestError")),
        (to_npy(np.zeros((1, 3, 5, 5), np.float32)), NPY, {}, (422, "ImageError")),
        (to_npy(np.full((1, 3, SIDE, SIDE), np.nan, np.float32)), NPY, {}, (422, "ImageError")),
        (to_npy(np.full((1, 3, SIDE, SIDE), 1e300)), NPY, {}, (422, "ImageError")),
        (to_npy(np.full((1, 3, SIDE, SIDE), 3e38, np.float32)), NPY, {}, (422, "ImageError")),
        (instances(*[b"x"] * 9), JSON, {}, (413, "TooLargeError")),
    ],
)
def test_invalid_request_is_rejected(
    client: FlaskClient, body: bytes, content_type: str, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    assert error_type(invoke(client, body, content_type, **headers)) == expected


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_photos_of_every_mode_are_served(client: FlaskClient, mode: str) -> None:
    image = draw_photo().convert("L" if mode == "I;16" else mode)
    image = image if mode != "I;16" else Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    assert invoke(client, encode(image, "TIFF" if mode == "CMYK" else "PNG"), "image/*").status_code == 200


def test_unknown_paths_and_methods_get_an_error_of_the_same_form(client: FlaskClient) -> None:
    assert error_type(client.get("/unknown")) == (404, "NotFound")
    response = client.get("/invocations")
    assert error_type(response) == (405, "MethodNotAllowed")
    assert "POST" in response.headers["Allow"]


def test_errors_of_the_transport_have_the_same_form(client: FlaskClient) -> None:
    response = client.post("/invocations", environ_overrides={REQUEST_ERROR: BusyError("the queue is full")})
    assert error_type(response) == (503, "BusyError")
    assert response.headers["Retry-After"] == "1"
    assert error_type(client.get("/", environ_overrides={REQUEST_ERROR: TooSlowError("late")})) == (408, "TooSlowError")


def test_errors_of_the_caller_have_a_status_below_500() -> None:
    for kind in (ConfigError, DataError, ImageError, WeightsError, ArtifactError, MediaTypeError):
        statuses = [status for base, status in STATUS.items() if issubclass(kind, base)]
        assert all(status < 500 for status in statuses[:1])


def test_internal_errors_are_logged_and_not_exposed(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, predictor: Predictor, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(predictor, "predict", broken)
    response = invoke(client, b"x")
    assert error_type(response) == (500, "InternalError")
    assert "secret" not in response.text
    failed, answered = logged(capfd)
    assert "RuntimeError: a secret" in failed["traceback"]
    assert (answered["status"], answered["level"], answered["error"]) == (500, "error", "RuntimeError")


def test_ping_returns_200_without_a_body(client: FlaskClient) -> None:
    response = client.get("/ping")
    assert (response.status_code, response.data) == (200, b"")
    assert client.head("/ping").status_code == 200


def test_ping_fails_once_the_engine_has_stopped(artifact_folder: Path, settings: ServerSettings) -> None:
    predictor = Predictor.open(artifact_folder, settings)
    client = create_app(predictor, settings, Telemetry(), Admission()).test_client()
    assert client.get("/ping").status_code == 200
    predictor.close()
    assert client.get("/ping").status_code == 503
    assert error_type(invoke(client, drawn_photos(1)[0])) == (503, "BusyError")


class Saturation(Admission):
    """An admission that has refused requests for as long as the test says."""

    seconds = 0.0

    def saturated_s(self) -> float:
        return self.seconds


def test_ready_fails_while_the_server_is_saturated_or_stopping(predictor: Predictor, settings: ServerSettings) -> None:
    admission = Saturation()
    client = create_app(predictor, settings, Telemetry(), admission).test_client()
    assert (client.get("/ready").status_code, client.get("/ready").get_json()) == (200, {"status": "ready"})
    admission.seconds = 2.9
    assert client.get("/ready").status_code == 200
    admission.seconds = 3.1
    response = client.get("/ready")
    assert error_type(response) == (503, "NotReadyError")
    assert "saturated for 3.1 s" in response.text
    assert client.get("/ping").status_code == 200
    admission.is_draining = True
    response = client.get("/ready")
    assert error_type(response) == (503, "NotReadyError")
    assert "stopping" in response.text


def test_ready_fails_once_the_engine_has_stopped(artifact_folder: Path, settings: ServerSettings) -> None:
    predictor = Predictor.open(artifact_folder, settings)
    client = create_app(predictor, settings, Telemetry(), Admission()).test_client()
    predictor.close()
    assert error_type(client.get("/ready")) == (503, "NotReadyError")


@pytest.mark.parametrize(
    ("limits", "transforms", "payload"),
    [
        ({}, 4, 25),
        ({"max_body_mb": 2}, 8, 2),
        ({"max_body_mb": 2, "max_requests": 3}, 3, 2),
        ({"max_body_mb": 0.3}, 8, 1),
        ({"max_body_mb": 12.9}, 8, 12),
        ({"max_body_mb": 13}, 7, 13),
        ({"max_body_mb": 2048}, 1, 100),
    ],
)
def test_execution_parameters_respect_the_platforms_limits(
    predictor: Predictor, limits: dict[str, Any], transforms: int, payload: int
) -> None:
    client = create_app(predictor, ServerSettings(**limits), Telemetry(), Admission()).test_client()
    assert client.get("/execution-parameters").get_json() == {
        "MaxConcurrentTransforms": transforms,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": payload,
    }
    assert transforms * payload <= 100


def logged(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines logged since the last call."""
    log.flush()
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_request_is_logged_as_one_line_of_json(client: FlaskClient, capfd: pytest.CaptureFixture[str]) -> None:
    invoke(client, drawn_photos(1)[0], X_Amzn_SageMaker_Inference_Id="id-7")
    invoke(client, b"x")
    client.get("/ping")
    client.get("/ready")
    first, second = logged(capfd)
    assert (first["status"], first["inference_id"], sorted(first["stages_ms"])) == (
        200,
        "id-7",
        ["decode", "infer", "queue", "wait"],
    )
    assert (second["status"], second["error"]) == (422, "ImageError")
    assert (first["level"], second["level"]) == ("info", "warning")
    assert "not an image" in second["message"]


def test_refusal_is_logged_with_what_is_known_of_the_request(
    client: FlaskClient, capfd: pytest.CaptureFixture[str]
) -> None:
    busy = {REQUEST_ERROR: BusyError("the queue is full")}
    headers = {"X-Amzn-SageMaker-Inference-Id": "id-8"}
    client.post("/invocations", data=b"four", headers=headers, environ_overrides=busy)
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", NUM_RECEIVED: 5000}
    client.post("/x" * 5000, environ_overrides={**busy, **chunked})
    unparsed = {"REQUEST_METHOD": "", "PATH_INFO": "", REQUEST_ERROR: TooSlowError("late")}
    client.open("/", environ_overrides=unparsed)
    announced, received, unknown = logged(capfd)
    del announced["time"], announced["ms"]
    assert announced == {
        "level": "error",
        "method": "POST",
        "path": "/invocations",
        "status": 503,
        "num_bytes": 4,
        "inference_id": "id-8",
        "error": "BusyError",
        "message": "the queue is full",
    }
    assert (received["num_bytes"], len(received["path"])) == (5000, 1000)
    assert (unknown["status"], unknown["message"], "method" in unknown) == (408, "late", False)


@pytest.mark.parametrize(("level", "statuses"), [("info", [200, 422, 503]), ("warning", [422, 503]), ("error", [503])])
def test_level_selects_the_requests_that_are_logged(
    predictor: Predictor, settings: ServerSettings, capfd: pytest.CaptureFixture[str], level: str, statuses: list[int]
) -> None:
    limited = settings.model_copy(update={"log_level": level})
    client = create_app(predictor, limited, Telemetry(), Admission()).test_client()
    invoke(client, drawn_photos(1)[0])
    invoke(client, b"no photo")
    client.get("/ping", environ_overrides={REQUEST_ERROR: BusyError("the queue is full")})
    assert [one["status"] for one in logged(capfd)] == statuses


def test_share_of_the_successful_requests_is_logged(
    predictor: Predictor, settings: ServerSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    counts = []
    for share in (0, 0.5):
        client = create_app(
            predictor, settings.model_copy(update={"log_sample": share}), Telemetry(), Admission()
        ).test_client()
        for _ in range(100):
            client.get("/execution-parameters")
        client.get("/unknown")
        lines = logged(capfd)
        assert lines[-1]["status"] == 404
        counts.append(len(lines) - 1)
    assert counts[0] == 0
    # Outside of it in fewer than one of 10^9 runs.
    assert 20 <= counts[1] <= 80


def test_page_is_served_only_if_configured(predictor: Predictor, settings: ServerSettings) -> None:
    with_page = settings.model_copy(update={"page": True})
    page = create_app(predictor, with_page, Telemetry(), Admission()).test_client().get("/")
    assert page.status_code == 200
    assert "squeezenet1_1" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert create_app(predictor, settings, Telemetry(), Admission()).test_client().get("/").status_code == 404


def test_metrics_count_requests_stages_and_batches(artifact_folder: Path, settings: ServerSettings) -> None:
    telemetry = Telemetry()
    with telemetry.loading(SINGLE_MODEL) as metrics:
        predictor = Predictor.open(artifact_folder, settings, metrics)
    client = create_app(predictor, settings, telemetry, Admission()).test_client()
    invoke(client, instances(*drawn_photos(3)), JSON)
    invoke(client, b"no photo")
    client.get("/ping")
    client.get("/unknown/1")
    client.open("/unknown/2", method="NONE")
    value = telemetry.registry.get_sample_value
    predicted = {"method": "POST", "route": "/invocations", "model": "default"}
    assert value("classifier_requests_total", {**predicted, "status": "200"}) == 1
    assert value("classifier_requests_total", {**predicted, "status": "422"}) == 1
    assert value("classifier_request_seconds_count", predicted) == 2
    ping = {"method": "GET", "route": "/ping", "model": "", "status": "200"}
    assert value("classifier_requests_total", ping) == 1
    unknown = {"method": "", "route": "", "model": "", "status": "404"}
    assert value("classifier_requests_total", unknown) == 2
    assert value("classifier_refusals_total", {"reason": "ImageError"}) == 1
    assert value("classifier_refusals_total", {"reason": "NotFound"}) == 2
    assert value("classifier_stage_seconds_count", {"model": "default", "stage": "decode"}) == 3
    assert value("classifier_batch_size_sum", {"model": "default"}) == 4
    assert value("classifier_engine_queue_depth", {"model": "default"}) == 0
    assert value("classifier_decode_queue_depth", {"model": "default"}) == 0
    predictor.close()
