"""Downloads from a real HTTP server that breaks connections, changes the file, or does not support ranges."""

import hashlib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from classifier.errors import DataError
from commands import interrupts
from dataset.download import download

DATA = bytes(range(256)) * 4000
LIMIT = 10_000_000


@dataclass
class Site:
    """The server's file and behaviour; ``ranges`` are the Range headers that it received."""

    url: str = ""
    data: bytes = DATA
    etag: str = '"one"'
    status: int = 200
    breaks: list[int] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    knows_ranges: bool = True
    moved_to: str = ""
    sends_length: bool = True


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested = self.headers.get("Range")
            site.ranges.append(requested)
            if site.moved_to or site.status != 200:
                self.send_response(302 if site.moved_to else site.status)
                self.send_header("Location", site.moved_to)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            if requested and site.knows_ranges and self.headers.get("If-Range") in (None, site.etag):
                start = int(re.fullmatch(r"bytes=(\d+)-", requested)[1])  # pyright: ignore[reportOptionalSubscript]
            self.send_response(206 if start else 200)
            if site.sends_length:
                self.send_header("Content-Length", str(len(site.data) - start))
            if site.etag:
                self.send_header("ETag", site.etag)
            self.end_headers()
            end = site.breaks.pop(0) if site.breaks else len(site.data)
            self.wfile.write(site.data[start:end])

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_address[1]}/photos.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


Fetch = Callable[..., tuple[Path, str]]


@pytest.fixture
def fetch(site: Site, tmp_path: Path) -> Fetch:
    def fetch(*, max_bytes: int = LIMIT, sha256: str | None = None) -> tuple[Path, str]:
        return download(site.url, tmp_path, max_bytes=max_bytes, sha256=sha256, sleep=lambda _: None)

    return fetch


def test_a_file_is_returned_with_its_checksum(fetch: Fetch) -> None:
    path, digest = fetch()
    assert path.read_bytes() == DATA
    assert path.name.endswith("-photos.zip")
    assert digest == hashlib.sha256(DATA).hexdigest()


def test_a_broken_connection_is_resumed(site: Site, fetch: Fetch) -> None:
    site.breaks = [300_000, 700_000]
    path, _ = fetch()
    assert path.read_bytes() == DATA
    assert site.ranges == [None, "bytes=300000-", "bytes=700000-"]


def test_ctrl_c_that_a_library_has_lost_ends_a_download(site: Site, tmp_path: Path) -> None:
    def lose_ctrl_c(_: float) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    site.breaks = [300_000]
    with interrupts.noted(), pytest.raises(KeyboardInterrupt):
        download(site.url, tmp_path, max_bytes=LIMIT, sha256=None, sleep=lose_ctrl_c)
    assert site.ranges == [None]


def test_the_next_run_resumes_a_download(site: Site, fetch: Fetch) -> None:
    site.breaks = [400_000] * 20
    with pytest.raises(DataError, match=r"failed .*; 400 kB are kept: run the same command again to resume"):
        fetch()
    site.breaks, site.ranges = [], []
    assert fetch()[0].read_bytes() == DATA
    assert site.ranges == ["bytes=400000-"]


def test_a_complete_file_is_not_fetched_again(site: Site, fetch: Fetch) -> None:
    fetch()
    fetch()
    assert len(site.ranges) == 1


def test_a_file_that_has_changed_is_fetched_from_its_start(site: Site, fetch: Fetch) -> None:
    site.breaks = [300_000] * 20
    with pytest.raises(DataError):
        fetch()
    site.breaks, site.data, site.etag = [], DATA[::-1], '"two"'
    assert fetch()[0].read_bytes() == DATA[::-1]


@pytest.mark.parametrize(("knows_ranges", "etag"), [(False, '"one"'), (True, ""), (True, 'W/"weak"')])
def test_without_ranges_a_download_starts_again(site: Site, fetch: Fetch, knows_ranges: bool, etag: str) -> None:
    site.knows_ranges, site.etag, site.breaks = knows_ranges, etag, [300_000]
    assert fetch()[0].read_bytes() == DATA


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(site: Site, fetch: Fetch, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the file has changed or was damaged"):
        fetch(sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
    assert fetch(sha256=hashlib.sha256(DATA).hexdigest().upper())[0].read_bytes() == DATA
    assert len(site.ranges) == 2


def test_a_too_large_file_is_refused_before_it_is_fetched(fetch: Fetch) -> None:
    with pytest.raises(DataError, match=r"1.02 MB exceed --max-size \(1 MB\)"):
        fetch(max_bytes=1_000_000)


def test_a_too_large_file_of_unknown_length_is_refused_while_it_is_fetched(site: Site, fetch: Fetch) -> None:
    site.sends_length = False
    assert fetch(max_bytes=len(DATA))[0].read_bytes() == DATA
    site.url += "?other"
    with pytest.raises(DataError, match="the file exceeds --max-size"):
        fetch(max_bytes=len(DATA) - 1)


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 6)])
def test_an_error_status_is_reported(site: Site, fetch: Fetch, status: int, requests: int) -> None:
    site.status = status
    with pytest.raises(DataError, match=str(status)):
        fetch()
    assert len(site.ranges) == requests


def test_a_redirection_to_another_scheme_is_refused(site: Site, fetch: Fetch) -> None:
    site.moved_to = "ftp://127.0.0.1/etc/passwd"
    with pytest.raises(DataError, match="only http and https are supported, not ftp"):
        fetch()
