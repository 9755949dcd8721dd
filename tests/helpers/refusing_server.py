"""A camera on 127.0.0.1 that refuses every request, RTSP and HTTP alike, with 401."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Refusal(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while request := self.rfile.readline().decode(errors="replace"):
            fields = {}
            while line := self.rfile.readline().decode(errors="replace").strip():
                key, _, value = line.partition(":")
                fields[key.lower()] = value.strip()
            protocol = "RTSP/1.0" if request.rstrip().endswith("RTSP/1.0") else "HTTP/1.1"
            head = [
                f"{protocol} 401 Unauthorized",
                f"CSeq: {fields.get('cseq', '1')}",
                'WWW-Authenticate: Basic realm="camera"',
                "Content-Length: 0",
            ]
            self.wfile.write(("\r\n".join(head) + "\r\n\r\n").encode())


@contextmanager
def refusing_server() -> Iterator[int]:
    """Serve while the block lasts; yield the port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Refusal) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
