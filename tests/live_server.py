"""A server of one endless stream for tests: it sends what it has within a second or two, then waits to be told."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_PIECES, _PAUSE_S = 40, 0.05


@dataclass(frozen=True)
class LiveServer:
    """Attributes: `url`; `go_on`, after which the connection is closed; `clients`, how many came."""

    url: str
    go_on: threading.Event
    clients: list[str]


@contextmanager
def serve_live(content: bytes) -> Iterator[LiveServer]:
    """Serves an MPEG transport stream of unknown length on this machine."""
    go_on = threading.Event()
    clients: list[str] = []
    piece = max(len(content) // _PIECES, 1)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            clients.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            try:
                for start in range(0, len(content), piece):
                    self.wfile.write(content[start : start + piece])
                    self.wfile.flush()
                    go_on.wait(_PAUSE_S)
                go_on.wait(120)
            except OSError:  # the client has gone
                pass

        def log_message(self, *_words: object) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield LiveServer(f"http://127.0.0.1:{server.server_address[1]}/cam.ts", go_on, clients)
    finally:
        go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
