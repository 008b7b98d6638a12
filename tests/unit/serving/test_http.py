"""HTTP parsing, however the bytes are split, and WSGI calls."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.serving.errors import RequestError, TooLargeError
from classifier.serving.http import Environ, Reply, Request, RequestReader, call, environ_of

POST = b"POST /invocations?a=b HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


def reader(max_body: int = 1000) -> RequestReader:
    return RequestReader(max_body=max_body)


@pytest.mark.parametrize("data", [POST, CHUNKED])
@given(cuts=st.lists(st.integers(0, 150), max_size=6))
def test_request_does_not_depend_on_how_its_bytes_are_split(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    one = reader()
    requests = [one.feed(data[start:end]) for start, end in pairwise(edges)]
    assert [request.body for request in requests if request is not None][:1] == [b"hello"]


def test_request_reaches_the_wsgi_environment() -> None:
    request = reader().feed(POST)
    assert request is not None
    assert (request.method, request.path, request.keep_alive) == ("POST", "/invocations", True)
    environ = environ_of(request, {"extra": 1})
    assert environ["CONTENT_TYPE"] == "image/png"
    assert environ["QUERY_STRING"] == "a=b"
    assert environ["wsgi.input"].read() == b"hello"
    assert environ["extra"] == 1


def test_connection_carries_several_requests() -> None:
    one = reader()
    assert one.feed(POST + CHUNKED[:30]) is not None
    rest = one.next()
    assert rest == CHUNKED[:30]
    assert one.feed(rest) is None
    second = one.feed(CHUNKED[30:])
    assert second is not None
    assert second.body == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET /" + b"a" * 10_000,
        b"GET / HTTP/1.1\r\na: " + b"b" * 10_000,
    ],
)
def test_invalid_http_is_rejected(data: bytes) -> None:
    with pytest.raises(RequestError):
        reader().feed(data)


def test_body_over_the_limit_is_rejected_before_it_arrives() -> None:
    with pytest.raises(TooLargeError):
        reader(max_body=4).feed(POST[:-5])


def test_chunked_body_is_rejected_when_it_exceeds_the_limit() -> None:
    with pytest.raises(TooLargeError):
        reader(max_body=4).feed(CHUNKED)


def test_body_in_tiny_chunks_is_rejected() -> None:
    with pytest.raises(RequestError, match="chunks"):
        reader(max_body=10_000).feed(CHUNKED[: CHUNKED.index(b"3\r\n")] + b"1\r\na\r\n" * 500)


def test_expectation_is_answered_once() -> None:
    one = reader()
    one.feed(POST.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue")[:-5])
    assert one.take_continue()
    assert not one.take_continue()


def test_header_with_an_underscore_is_not_mistaken_for_another() -> None:
    environ = environ_of(Request(headers=(("content_type", "text/evil"), ("a", "1"), ("a", "2"))), {})
    assert "CONTENT_TYPE" not in environ
    assert environ["HTTP_A"] == "1,2"


def test_application_is_called_and_closed() -> None:
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Any:
            return iter([b"a", b"b"])

        def close(self) -> None:
            closed.append(True)

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("X-Path", environ["PATH_INFO"])])
        return Body()

    reply = call(app, environ_of(Request(target="/a%20b"), {}))
    assert (reply.status, reply.headers, reply.body, closed) == ("200 OK", [("X-Path", "/a b")], b"ab", [True])


def test_response_to_head_has_no_body() -> None:
    reply = Reply(status="200 OK", headers=[], body=b"text")
    data = reply.encode(Request(method="HEAD"), keep_alive=True)
    assert data == b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\n"


@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_a_request_or_an_error(data: bytes) -> None:
    one = reader()
    try:
        one.feed(b"POST / HTTP/1.1\r\n" + data)
    except RequestError:
        assert True
