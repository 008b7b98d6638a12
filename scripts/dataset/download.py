"""Resumable download of a file over HTTP, checked against a SHA-256."""

import hashlib
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from classifier.errors import DataError
from commands import interrupts
from dataset.progress import format_amount, progress

_ATTEMPTS = 6  # in a row without a byte of progress
_TIMEOUT_S = 30
_BLOCK_SIZE = 1 << 20  # bytes


def is_url(text: str) -> bool:
    """Whether SOURCE is an address rather than a path."""
    return "://" in text


def download(
    url: str,
    folder: Path,
    *,
    max_bytes: int,
    sha256: str | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> tuple[Path, str]:
    """Download a file into a folder, continuing an interrupted download.

    A file that is complete already is not fetched again.

    Returns:
        The path of the file, and its SHA-256 in hexadecimal.

    Raises:
        DataError: the address is not supported or not found, the server stops sending, the file is larger than
            ``max_bytes``, or its checksum is not ``sha256``.
    """
    _check_scheme(url)
    folder.mkdir(parents=True, exist_ok=True)
    # The address is part of the name, so that a partial download of another file is never continued.
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{_file_name(url)}"
    if not path.exists():
        _fetch(url, path, max_bytes, sleep)
    digest = _digest(path)
    if sha256 and digest != sha256.lower():
        path.unlink()
        raise DataError(f"{url}: its SHA-256 is {digest}, not {sha256}: the file has changed or was damaged")
    return path, digest


def _check_scheme(url: str) -> None:
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in ("http", "https"):
        hint = "; copy the file here first with `aws s3 cp`" if scheme == "s3" else ""
        raise DataError(f"{url}: only http and https are supported, not {scheme}{hint}")


def _file_name(url: str) -> str:
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name[-100:] or "download"


def _fetch(url: str, path: Path, max_bytes: int, sleep: Callable[[float], object]) -> None:
    part, tag = path.with_name(path.name + ".part"), path.with_name(path.name + ".tag")
    failures, reason = 0, ""
    while failures < _ATTEMPTS:
        interrupts.check()
        before = _size(part)
        try:
            _fetch_rest(url, part, tag, max_bytes)
            part.rename(path)
            tag.unlink(missing_ok=True)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in (408, 429, 500, 502, 503, 504):
                raise DataError(f"{url}: the server responds with {error.code} {error.reason}") from None
            reason = f"{error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if _size(part) > before else failures + 1
        sleep(min(2**failures, 30) / 2)
    raise DataError(
        f"{url}: {_ATTEMPTS} attempts in a row failed ({reason}); "
        f"{format_amount(_size(part), 'B')} are kept: run the same command again to resume"
    )


def _fetch_rest(url: str, part: Path, tag: Path, max_bytes: int) -> None:
    """Fetch the rest of a file over one connection.

    Raises:
        OSError: the connection broke; what has arrived is in ``part``.
        DataError: the file is larger than ``max_bytes``.
    """
    start = _size(part)
    headers = {"Accept-Encoding": "identity", "User-Agent": "prepare_data"}
    if start and tag.exists():
        # If-Range: the server sends a file that has changed since from its start.
        headers |= {"Range": f"bytes={start}-", "If-Range": tag.read_text()}
    else:
        start = 0
    with _open(url, headers) as response:
        if response.status != 206:
            start = 0
        total = _total(response, start)
        if total is not None and total > max_bytes:
            raise DataError(f"{url}: {format_amount(total, 'B')} exceed --max-size ({format_amount(max_bytes, 'B')})")
        tag.write_text(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
        if not tag.read_text() or tag.read_text().startswith("W/"):
            tag.unlink()
        _store(response, part, start, total, max_bytes)


def _open(url: str, headers: dict[str, str]) -> HTTPResponse:
    class Redirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req, fp, code, msg, headers, newurl):  # noqa: ANN001, ANN202
            _check_scheme(newurl)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    opener = urllib.request.build_opener(Redirect)
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)
    except ValueError as error:
        raise DataError(f"{url}: not a valid address: {error}") from None


def _total(response: HTTPResponse, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return start + int(length) if length else None


def _store(response: HTTPResponse, part: Path, start: int, total: int | None, max_bytes: int) -> None:
    with part.open("r+b" if start else "wb") as file, progress("downloading", total, unit="B") as advance:
        file.seek(start)
        file.truncate()
        advance(start)
        done = start
        while block := response.read(_BLOCK_SIZE):
            interrupts.check()
            done += len(block)
            if done > max_bytes:
                raise DataError(f"{response.url}: the file exceeds --max-size ({format_amount(max_bytes, 'B')})")
            file.write(block)
            advance(len(block))
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {format_amount(done, 'B')} of {format_amount(total, 'B')}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
