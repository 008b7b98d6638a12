"""A stand-in for torchvision's hub: an HTTPS server that clients reach as their proxy."""

import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

HOST = "download.pytorch.org"


@contextmanager
def running_hub(folder: Path, files: Mapping[str, bytes]) -> Iterator[dict[str, str]]:
    """Run a hub that serves files by their names, under any path.

    Args:
        folder: where its certificate is written.

    Yields:
        The environment variables with which a client's connections to the real hub end here.
    """
    certificate, key = folder / "hub.pem", folder / "hub.key"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]
    names = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    command = ["openssl", "req", "-x509", *options, *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = _Proxy(context, files)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield {"https_proxy": f"http://127.0.0.1:{server.server_port}", "SSL_CERT_FILE": str(certificate)}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Proxy(ThreadingHTTPServer):
    """A proxy that answers every connection itself."""

    daemon_threads = False

    def __init__(self, context: ssl.SSLContext, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.context = context
        self.files = files


class _Tunnel(BaseHTTPRequestHandler):
    def do_CONNECT(self) -> None:
        """Accept a tunnel and serve HTTPS at its other end."""
        self.send_response(200)
        self.end_headers()
        with cast(_Proxy, self.server).context.wrap_socket(self.connection, server_side=True) as secure:
            _Files(secure, self.client_address, self.server)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class _Files(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer with a file, or 404."""
        content = cast(_Proxy, self.server).files.get(self.path.rpartition("/")[2])
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
