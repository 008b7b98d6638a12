"""HTTP of RFC 9112: what is read, and what is refused with an error that says why, to the caller and in the log."""

import pytest

from support.drawing import draw_photo, encode
from support.raw_http import chunked_request, head, read_all, read_reply, request, send
from support.servers import Reply, ServerProcess

PHOTO = encode(draw_photo(64, 64))
CHUNKED = {"Transfer_Encoding": "chunked"}


def answer(server: ServerProcess, message: bytes) -> Reply:
    with server.connect() as sock:
        send(sock, message)
        return read_reply(sock)


@pytest.mark.parametrize(
    "message",
    [
        request(PHOTO, target="http://example.org/invocations"),
        request(PHOTO, target="http://example.org:8080/invocations?x=1"),
        request(PHOTO, None),
        request(PHOTO, Content_Encoding="identity"),
        request(PHOTO, version="1.0", Host=None),
        request(PHOTO, X="y" * 8000, Y="y" * 8000, Z="y" * 8000),
        request(PHOTO, Expect="100-continue"),
        b"\r\n" + request(PHOTO),
        chunked_request(PHOTO, Transfer_Encoding="Chunked"),
    ],
    ids=["absolute", "absolute-port", "no-type", "identity", "http1.0", "24kb-head", "expect", "empty-line", "Chunked"],
)
def test_unusual_requests_are_answered(server: ServerProcess, message: bytes) -> None:
    reply = answer(server, message)
    assert (reply.status, reply.body) == (200, server.invoke(PHOTO).body)


REFUSED: dict[str, tuple[bytes, int]] = {
    "no Host": (request(PHOTO, Host=None), 400),
    "coding of the transfer": (chunked_request(PHOTO, Transfer_Encoding="gzip, chunked"), 501),
    "coding of the content": (request(PHOTO, Content_Encoding="gzip"), 415),
    "two lengths": (head(Content_Length="5\r\nContent-Length: 7") + b"12345", 400),
    "list of lengths": (request(b"12345", length="5, 7"), 400),
    "signed length": (request(b"12345", length="+5"), 400),
    "negative length": (request(b"12345", length="-5"), 400),
    "hexadecimal length": (request(b"12345", length="0x5"), 400),
    "length with an underscore": (request(b"1234567890", length="1_0"), 400),
    "length of 5,000 digits": (request(b"12345", length="9" * 5000), 400),
    "length and chunks": (chunked_request(PHOTO, Content_Length="5"), 400),
    "chunked twice": (chunked_request(PHOTO, Transfer_Encoding="chunked, chunked"), 400),
    "chunks in HTTP/1.0": (chunked_request(PHOTO, version="1.0"), 400),
    "chunk without a size": (head(**CHUNKED) + b"zz\r\nab\r\n0\r\n\r\n", 400),
    "chunk of a negative size": (head(**CHUNKED) + b"-5\r\nabcde\r\n0\r\n\r\n", 400),
    "chunk of 0x size": (head(**CHUNKED) + b"0x5\r\nabcde\r\n0\r\n\r\n", 400),
    "chunk longer than its size": (head(**CHUNKED) + b"3\r\nabcde\r\n0\r\n\r\n", 400),
    "space before the colon": (head(**{"Content-Length ": "5"}) + b"12345", 400),
    "folded line": (head(X="a\r\n b", Content_Length="5") + b"12345", 400),
    "NUL in a value": (head(X="a\0b", Content_Length="5") + b"12345", 400),
    "no name": (head(**{"": "x"}, Content_Length="5") + b"12345", 400),
    "bare line feeds": (request(PHOTO).replace(b"\r\n", b"\n", 5), 400),
    "no version": (b"GET /ping\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", 400),
    "40 KB in five headers": (head(**{f"X{number}": "y" * 8000 for number in range(5)}), 431),
    "40 KB in many headers": (head(**{f"X{number}": "y" for number in range(4000)}), 431),
    "too large a body": (head(Content_Length="99999999999"), 413),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_requests_get_an_error_that_is_logged(server: ServerProcess, name: str) -> None:
    message, status = REFUSED[name]
    reply = answer(server, message)
    assert reply.status == status, reply.body
    error = reply.json()["error"]
    assert sorted(error) == ["message", "type"]
    assert error["message"]
    line = server.wait_for_log_line(status=status, error=error["type"], message=error["message"])
    assert line["path"]


def test_refusals_say_what_was_wrong(server: ServerProcess) -> None:
    def reason(name: str) -> str:
        return answer(server, REFUSED[name][0]).json()["error"]["message"]

    assert "gzip" in reason("coding of the content")
    assert "gzip" in reason("coding of the transfer")
    assert "Host" in reason("no Host")
    assert "headers" in reason("40 KB in five headers")


def test_refused_request_is_logged_with_what_is_known_of_it(server: ServerProcess) -> None:
    answer(server, head(method="PUT", target="/elsewhere?x=1", X_Amzn_SageMaker_Inference_Id="id-7", Host=None))
    line = server.wait_for_log_line(method="PUT", path="/elsewhere")
    assert line["inference_id"] == "id-7"


@pytest.mark.parametrize("name", ["length and chunks", "chunk of a negative size", "two lengths"])
def test_nothing_after_a_malformed_request_is_read(server: ServerProcess, name: str) -> None:
    with server.connect() as sock:
        send(sock, REFUSED[name][0] + b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_all(sock).count(b"HTTP/1.1 ") == 1
