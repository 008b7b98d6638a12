"""The metrics: their series appear and disappear with the models, and the labels' values are bounded."""

import logging
import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from classifier.errors import ArtifactError
from classifier.serving.app import create_multi_model_app
from classifier.serving.asgi import Admission
from classifier.serving.errors import BusyError
from classifier.serving.model_manager import ModelManager
from classifier.serving.predictor import Predictor
from classifier.serving.settings import ServerSettings
from classifier.serving.telemetry import Telemetry
from support.servers import drawn_photos, free_port


def exposed(telemetry: Telemetry) -> str:
    return generate_latest(telemetry.registry).decode()


def test_series_of_a_model_exist_while_it_is_loaded(artifact_folder: Path, settings: ServerSettings) -> None:
    telemetry = Telemetry()

    def open_model(name: str, folder: Path) -> Predictor:
        with telemetry.loading(name) as metrics:
            return Predictor.open(folder, settings, metrics)

    manager = ModelManager(artifact_folder.parent, open_model, lambda: 1 << 40)
    client = create_multi_model_app(manager, settings, telemetry, Admission()).test_client()
    assert client.post("/models", json={"model_name": "a b", "url": str(artifact_folder)}).status_code == 200
    photo = drawn_photos(1)[0]
    assert client.post("/models/a b/invoke", data=photo, content_type="image/jpeg").status_code == 200
    assert client.post("/models/unknown/invoke", data=photo, content_type="image/jpeg").status_code == 404
    labels = {"method": "POST", "route": "/models/<path:name>/invoke"}
    value = telemetry.registry.get_sample_value
    assert value("classifier_requests_total", {**labels, "model": "a b", "status": "200"}) == 1
    assert value("classifier_requests_total", {**labels, "model": "", "status": "404"}) == 1
    assert value("classifier_stage_seconds_count", {"model": "a b", "stage": "infer"}) == 2
    assert value("classifier_engine_queue_depth", {"model": "a b"}) == 0
    assert "unknown" not in exposed(telemetry)
    assert client.delete("/models/a b").status_code == 200
    assert 'model="a b"' not in exposed(telemetry)


def test_late_requests_do_not_bring_a_removed_model_back() -> None:
    telemetry = Telemetry()
    with telemetry.loading("a") as metrics:
        pass
    telemetry.remove_model("a")
    metrics.record_stage("decode", 1)
    metrics.record_batch(1, 1)
    telemetry.record_request(method="POST", route="/", model="a", status=200, seconds=1)
    assert 'model="a"' not in exposed(telemetry)


def test_model_that_fails_to_load_leaves_no_series() -> None:
    telemetry = Telemetry()

    def load() -> None:
        with telemetry.loading("a") as metrics:
            metrics.record_stage("decode", 1)
            raise ArtifactError("no model")

    with pytest.raises(ArtifactError):
        load()
    assert 'model="a"' not in exposed(telemetry)


def test_any_name_of_a_model_can_be_scraped() -> None:
    telemetry = Telemetry()
    with telemetry.loading('\ud800"\n') as metrics:
        metrics.record_stage("decode", 1)
    assert 'model="\\\\ud800\\"\\n"' in exposed(telemetry)


def test_state_of_the_transport_is_read_at_each_scrape() -> None:
    telemetry = Telemetry()
    state = {"connections": 3, "buffered": 1000, "in_flight": 2}
    telemetry.set_gauges(
        connections=lambda: state["connections"],
        buffered_bytes=lambda: state["buffered"],
        in_flight=lambda: state["in_flight"],
    )
    telemetry.set_restarts(4)
    telemetry.record_eviction()
    telemetry.record_receive_timeout()
    telemetry.record_refusal(BusyError("the queue is full"))
    state["connections"] = 5
    text = exposed(telemetry)
    for line in [
        "classifier_connections 5.0",
        "classifier_buffered_bytes 1000.0",
        "classifier_requests_in_flight 2.0",
        "classifier_worker_restarts_total 4.0",
        "classifier_evictions_total 1.0",
        "classifier_receive_timeouts_total 1.0",
        'classifier_refusals_total{reason="BusyError"} 1.0',
        "classifier_log_lines_dropped_total 0.0",
    ]:
        assert line in text.splitlines()
    assert "process_resident_memory_bytes " in text
    assert "python_gc_collections_total{" in text


def test_all_own_metrics_have_the_prefix_and_a_description() -> None:
    names = [line.split()[2:] for line in exposed(Telemetry()).splitlines() if line.startswith("# HELP ")]
    assert len(names) > 20
    for name, *text in names:
        assert name.startswith(("classifier_", "process_", "python_"))
        assert text


def test_metrics_are_served_on_the_configured_address(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    Telemetry().publish("127.0.0.2", port)
    with urllib.request.urlopen(f"http://127.0.0.2:{port}/metrics", timeout=30) as response:
        assert b"classifier_connections" in response.read()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=30)
    with caplog.at_level(logging.WARNING):
        Telemetry().publish("127.0.0.2", port)
        Telemetry().publish("no.such.host.invalid", port)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "127.0.0.2" in caplog.text
