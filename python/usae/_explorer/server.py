"""A server for an explorer's files, for this machine alone."""

from __future__ import annotations

import functools
import getpass
import http.server
import os
import pathlib
import socket
import sys
import threading
from typing import Any

from usae.errors import CheckpointFileError


class Server:
    """Serves the files of an explorer on 127.0.0.1, in the background, until `close`.

    Attributes
    ----------
    address : str
        Address of the page.
    """

    def __init__(self, page: pathlib.Path, port: int):
        handler = functools.partial(_Files, page)
        try:
            self._server = _Quiet(("127.0.0.1", port), handler)
        except OSError as error:
            words = f"cannot serve at port {port}: {error.strerror or error}; use port=0 for a free one"
            raise CheckpointFileError(error.errno or 0, words, str(page)) from error
        self.port: int = self._server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="usae-explorer", daemon=True)
        self._thread.start()

    def told(self) -> str:
        """What to type where."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a user without a name
            user = "user"
        host = socket.gethostname() or "host"
        return (
            f"Concept explorer: {self.address}\nFrom another machine: ssh -N -L {self.port}:127.0.0.1:{self.port} {user}@{host}"
        )

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        try:
            self._thread.join()
        except KeyboardInterrupt:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Quiet(http.server.ThreadingHTTPServer):
    """Says nothing of browsers that leave before they have everything, as they do when a page is loaded again."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Files(http.server.BaseHTTPRequestHandler):
    """Answers with the page and its data files, and with nothing else that is in the folder."""

    server_version, sys_version = "usae", ""

    def __init__(self, page: pathlib.Path, *arguments: object):
        self._page = page
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        file = self._file()
        if not self._is_own_host() or file is None:
            self.send_error(404)
            return
        try:
            content = file.read_bytes()
        except OSError:
            self.send_error(404)
            return
        self.send_response(200)
        kind = "text/html" if file.suffix.lower() in (".html", ".htm") else "text/javascript"
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _file(self) -> pathlib.Path | None:
        name = self.path.partition("?")[0]
        if name in ("/", f"/{self._page.name}"):
            return self._page
        folder, _, data = name.lstrip("/").partition("/")
        if folder != "data" or not data.endswith(".js") or os.path.basename(data) != data:
            return None
        return self._page.parent / "data" / data

    def _is_own_host(self) -> bool:
        """Whether the browser was told this address, and not a name that a foreign page made point here."""
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        return host in ("127.0.0.1", "localhost", "")

    def log_message(self, format: str, *arguments: object) -> None:
        pass
