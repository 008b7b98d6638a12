"""The platform's hosting contract, checked on the running program."""

import shutil
from pathlib import Path

from support.servers import ServerProcess, drawn_photos, running


def test_photos_are_answered(server: ServerProcess) -> None:
    for photo in drawn_photos(3):
        reply = server.invoke(photo)
        assert reply.status == 200
        assert reply.json()["predicted_label"] in ("000", "001", "002")


def test_ping_has_no_body(server: ServerProcess) -> None:
    reply = server.request("GET", "/ping")
    assert (reply.status, reply.body) == (200, b"")


def test_no_torch_is_imported(server: ServerProcess) -> None:
    (worker,) = server.workers()
    for process in (server.process.pid, worker):
        assert "libtorch" not in Path(f"/proc/{process}/maps").read_text(encoding="utf-8")
    assert "libopenvino" in Path(f"/proc/{worker}/maps").read_text(encoding="utf-8")


def test_nothing_is_written_to_the_model_folder(
    small_server: ServerProcess, read_only_opt_ml: Path, opt_ml: Path
) -> None:
    assert small_server.invoke(drawn_photos(1)[0]).status == 200
    # The copy has the times of its original.
    assert listing(read_only_opt_ml) == listing(opt_ml)


def listing(base: Path) -> list[tuple[Path, int]]:
    return sorted((path.relative_to(base), path.stat().st_mtime_ns) for path in [base, *base.rglob("*")])


def test_multi_model_server_loads_serves_and_unloads(opt_ml: Path, tmp_path: Path) -> None:
    folder = tmp_path / "opt_ml" / "models" / "a1b2" / "model"
    shutil.copytree(opt_ml / "model", folder)
    with running(tmp_path / "opt_ml", tmp_path / "log", SAGEMAKER_MULTI_MODEL="true") as server:
        body = b'{"model_name": "a1b2", "url": "%s"}' % str(folder).encode()
        assert server.request("POST", "/models", body, content_type="application/json").status == 200
        reply = server.request("POST", "/models/a1b2/invoke", drawn_photos(1)[0], content_type="image/jpeg")
        assert reply.status == 200
        assert server.request("DELETE", "/models/a1b2").status == 200
        assert server.request("POST", "/models/a1b2/invoke", b"x").status == 404
        assert server.ping() == 200
