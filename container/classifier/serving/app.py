"""The Flask applications: routes of one model and of several, errors mapped to statuses, request logging.

The only module that imports Flask.
"""

import random
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from classifier.errors import ArtifactError, ImageError, MediaTypeError, UserError
from classifier.serving import codec, openapi
from classifier.serving.asgi import IS_WANTED, NUM_RECEIVED, REQUEST_ERROR, Admission
from classifier.serving.errors import (
    AcceptError,
    ModelExistsError,
    NotReadyError,
    OutOfMemoryError,
    ProtocolError,
    RequestError,
    TooLargeError,
    TooSlowError,
    UnavailableError,
    UnknownModelError,
)
from classifier.serving.json_photos import parse_json
from classifier.serving.log import format_traceback, log_line
from classifier.serving.model_manager import LoadedModel, ModelManager
from classifier.serving.predictor import Job, Predictor
from classifier.serving.settings import MIB, LogLevel, ServerSettings
from classifier.serving.telemetry import SINGLE_MODEL, Telemetry
from classifier.vision.manifest import ModelManifest

# The first match counts, so subclasses come before their bases.
STATUS: dict[type[Exception], int] = {
    ImageError: 422,
    MediaTypeError: 415,
    AcceptError: 406,
    TooLargeError: 413,
    TooSlowError: 408,
    UnknownModelError: 404,
    ModelExistsError: 409,
    ArtifactError: 400,
    RequestError: 400,
    OutOfMemoryError: 507,
    UnavailableError: 503,
}
RETRY_AFTER_S = 1
PREDICT_ROUTE = "/invocations"
# Routes that never wait for a model, so the transport may call them on its own thread.
INLINE_PATHS = frozenset({"/ping", "/ready", "/execution-parameters"})
DEFAULT_TOP_K = 5
MODELS_PER_PAGE = 100
# The platform rejects a batch transform with more than this number of concurrent requests times their largest payload.
MAX_TRANSFORM_MB = 100
MAX_TRANSFORMS = 8
MAX_LOGGED = 1000
_PAGE = Path(__file__).with_name("page.html")


def create_app(
    predictor: Predictor, settings: ServerSettings, telemetry: Telemetry, admission: Admission | None = None
) -> Flask:
    """Create the application that serves one model at ``/invocations``, with a page to try it on if configured."""
    app = _base_app(settings, telemetry, admission or Admission(), predictor.is_answering)
    telemetry.set_queues(lambda: {SINGLE_MODEL: predictor})

    @app.post(PREDICT_ROUTE)
    def invocations() -> Response:
        return _predict(predictor, settings)

    if settings.page:
        _add_page(app, predictor.manifest)
    _add_description(app, openapi.describe_model_api(settings, STATUS, predictor.manifest, DEFAULT_TOP_K))
    return app


def create_multi_model_app(
    manager: ModelManager, settings: ServerSettings, telemetry: Telemetry, admission: Admission | None = None
) -> Flask:
    """Create the application that implements the platform's multi-model API."""
    app = _base_app(settings, telemetry, admission or Admission(), manager.is_answering)
    telemetry.set_queues(lambda: {one.name: one.predictor for one in manager.all()})

    @app.post("/models")
    def load() -> dict[str, Any]:
        document = parse_json(request.get_data())
        name, url = _field(document, "model_name"), _field(document, "url")
        g.model = name
        return _describe(manager.load(name, url))

    @app.get("/models")
    def models() -> dict[str, Any]:
        return _list_page(manager.all(), request.args.get("next_page_token", ""))

    @app.get("/models/<path:name>")
    def model(name: str) -> dict[str, Any]:
        return _describe(manager.get(name))

    @app.delete("/models/<path:name>")
    def unload(name: str) -> dict[str, Any]:
        manager.get(name)
        # Before the name is free: a model that is loaded under it from then on has series of its own.
        telemetry.remove_model(name)
        return _describe(manager.unload(name))

    @app.post("/models/<path:name>/invoke")
    def invoke(name: str) -> Response:
        with manager.use(name) as model:
            return _predict(model.predictor, settings)

    _add_description(app, openapi.describe_multi_model_api(settings, STATUS, DEFAULT_TOP_K))
    return app


def describe_api(settings: ServerSettings) -> openapi.Document:
    """Return the description of the server that these settings ask for, whatever its models."""
    if settings.multi_model:
        return openapi.describe_multi_model_api(settings, STATUS, DEFAULT_TOP_K)
    return openapi.describe_model_api(settings, STATUS, None, DEFAULT_TOP_K)


def _base_app(
    settings: ServerSettings, telemetry: Telemetry, admission: Admission, is_answering: Callable[[], bool]
) -> Flask:
    """An application with the routes, hooks and error handlers that all applications share."""
    app = Flask(__name__, static_folder=None)
    app.before_request(_begin_request)
    app.after_request(lambda response: _end_request(response, telemetry, settings))
    app.register_error_handler(UserError, _handle_error)
    app.register_error_handler(UnavailableError, _handle_error)
    app.register_error_handler(HTTPException, _handle_http_error)
    app.register_error_handler(Exception, _handle_unexpected_error)

    @app.get("/ping")
    def ping() -> Response:
        return Response(status=200 if is_answering() else 503)

    @app.get("/ready")
    def ready() -> dict[str, str]:
        _check_ready(settings, admission, is_answering)
        return {"status": "ready"}

    @app.get("/execution-parameters")
    def execution_parameters() -> dict[str, Any]:
        return _execution_parameters(settings)

    return app


def _check_ready(settings: ServerSettings, admission: Admission, is_answering: Callable[[], bool]) -> None:
    if admission.is_draining:
        raise NotReadyError("this server is stopping")
    if not is_answering():
        raise NotReadyError("the model does not answer")
    saturated_s = admission.saturated_s()
    if saturated_s > settings.ready_after_s:
        raise NotReadyError(f"this server has been saturated for {saturated_s:.1f} s")


def _execution_parameters(settings: ServerSettings) -> dict[str, Any]:
    """What a batch transform uses if its request names nothing else.

    The largest body comes first, since a photo that does not fit fails its whole job; concurrency takes what is left.
    One record per request, because a line that fails should cost its own prediction alone, and lines that the platform
    puts together up to the payload's size might exceed the number of photos allowed in a request.
    """
    payload = min(MAX_TRANSFORM_MB, max(1, int(settings.max_body / MIB)))
    return {
        "MaxConcurrentTransforms": min(MAX_TRANSFORMS, settings.max_requests, MAX_TRANSFORM_MB // payload),
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": payload,
    }


# Predictions


def _predict(predictor: Predictor, settings: ServerSettings) -> Response:
    # Accept is checked before anything is computed.
    response_format = codec.negotiate(request.headers.get("Accept", ""), settings.default_accept)
    top_k = _top_k(request.headers.get("X-Amzn-SageMaker-Custom-Attributes", ""))
    codec.check_encoding(request.headers.get("Content-Encoding", ""))
    photos = codec.decode(request.get_data(cache=False), request.headers.get("Content-Type", ""), settings)
    g.job = Job(is_wanted=request.environ.get(IS_WANTED, lambda: True))
    outcomes = predictor.predict(photos.instances, g.job)
    body = codec.encode(outcomes, response_format, single=photos.single, top_k=top_k)
    media_type = response_format.media_type
    return Response(body, content_type=f"{media_type}; charset=utf-8" if media_type == "text/csv" else media_type)


@lru_cache(maxsize=64)
def _top_k(attributes: str) -> int:
    """Parse ``top_k=3`` from the custom attributes; other attributes are ignored."""
    pairs = (one.partition("=") for one in attributes.replace(";", ",").split(","))
    text = next((value.strip() for name, _, value in pairs if name.strip() == "top_k"), str(DEFAULT_TOP_K))
    if not text.isascii() or not text.isdigit() or len(text) > 6 or int(text) < 1:
        raise RequestError(f"top_k should be an integer of at least 1, not {text[:50]!r}")
    return int(text)


# Multi-model documents


def _field(document: object, name: str) -> str:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, str) or not value:
        raise RequestError('the JSON should be {"model_name": "…", "url": "…"}')
    return value


def _describe(model: LoadedModel) -> dict[str, Any]:
    return {"modelName": model.name, "modelUrl": model.url}


def _list_page(models: list[LoadedModel], token: str) -> dict[str, Any]:
    """One page of the sorted models, from the first whose name follows ``token``."""
    rest = [one for one in models if one.name > token]
    page = {"models": [_describe(one) for one in rest[:MODELS_PER_PAGE]]}
    return page if len(rest) <= MODELS_PER_PAGE else {**page, "nextPageToken": rest[MODELS_PER_PAGE - 1].name}


# The page and the description of the API


def _add_page(app: Flask, manifest: ModelManifest) -> None:
    """Serve a self-contained page at ``/``, which loads nothing from another host."""
    text = _PAGE.read_text(encoding="utf-8")
    for name, value in {"ARCHITECTURE": manifest.architecture, "NUM_CLASSES": str(len(manifest.classes))}.items():
        text = text.replace(f"{{{{{name}}}}}", value)

    @app.get("/")
    def page() -> Response:
        return Response(text, content_type="text/html; charset=utf-8")


def _add_description(app: Flask, document: openapi.Document) -> None:
    body = codec.dump_json(document)

    @app.get("/openapi.json")
    def description() -> Response:
        return Response(body, content_type=codec.JSON)


# Errors


def _handle_error(error: Exception) -> Response:
    status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
    if isinstance(error, ProtocolError):
        status = error.status
    g.error = error
    response = Response(codec.dump_json(codec.error_document(error)), status, content_type=codec.JSON)
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _handle_http_error(error: HTTPException) -> Response:
    """Flask's own errors: an unknown path, or a method that a path does not support."""
    g.error = error
    document = codec.error_document(error, error.description)
    headers = [one for one in error.get_headers() if one[0] == "Allow"]
    return Response(codec.dump_json(document), error.code, headers, content_type=codec.JSON)


def _handle_unexpected_error(error: Exception) -> Response:
    # A bug. The traceback goes to the log and never to the caller.
    g.error = error
    log_line(level="error", message="request failed", inference_id=_inference_id(), traceback=format_traceback(error))
    document = {"error": {"type": "InternalError", "message": "the server failed on this request"}}
    return Response(codec.dump_json(document), 500, content_type=codec.JSON)


# Hooks and logging


def _begin_request() -> None:
    g.start = time.monotonic()
    error = request.environ.get(REQUEST_ERROR)
    if error is not None:
        raise error


def _end_request(response: Response, telemetry: Telemetry, settings: ServerSettings) -> Response:
    seconds = time.monotonic() - g.start
    route = request.url_rule.rule if request.url_rule else ""
    telemetry.record_request(
        # A path that is unknown, or a method that it does not support, comes from the caller: any number of values.
        method=request.method if route else "",
        route=route,
        model=_model() or (SINGLE_MODEL if route == PREDICT_ROUTE else ""),
        status=response.status_code,
        seconds=seconds,
    )
    if "error" in g:
        telemetry.record_refusal(g.error)
    if _is_logged(response.status_code, settings):
        _log_request(response.status_code, seconds)
    return response


def _is_logged(status: int, settings: ServerSettings) -> bool:
    levels = get_args(LogLevel)
    level = _level(status)
    if levels.index(level) < levels.index(settings.log_level):
        return False
    # Probes arrive every few seconds, and only their failures tell anything.
    return level != "info" or (request.path not in ("/ping", "/ready") and random.random() < settings.log_sample)


def _level(status: int) -> LogLevel:
    if status >= 500:
        return "error"
    return "warning" if status >= 400 else "info"


def _log_request(status: int, seconds: float) -> None:
    job: Job | None = g.get("job")
    error: Exception | None = g.get("error")
    log_line(
        level=_level(status),
        method=request.method[:MAX_LOGGED] or None,
        path=request.path[:MAX_LOGGED],
        model=_model(),
        status=status,
        ms=round(seconds * 1e3, 2),
        stages_ms={name: round(value * 1e3, 2) for name, value in job.stages_s.items()} if job else None,
        num_bytes=_num_bytes(),
        inference_id=_inference_id(),
        error=type(error).__name__ if error else None,
        message=_message(error),
    )


def _message(error: Exception | None) -> str | None:
    # Flask's own errors are explained by their type, and bugs by the line with their traceback.
    is_ours = isinstance(error, UserError | UnavailableError)
    return str(error)[:MAX_LOGGED] if is_ours else None


def _model() -> str | None:
    """The name of the model that the request is about, where several are served."""
    return g.get("model") or (request.view_args or {}).get("name")


def _num_bytes() -> int | None:
    """The length of the body that was announced, else of what has arrived."""
    announced = request.content_length
    return request.environ.get(NUM_RECEIVED) if announced is None else announced


def _inference_id() -> str | None:
    identifier = request.headers.get("X-Amzn-SageMaker-Inference-Id")
    return identifier[:MAX_LOGGED] if identifier else None
