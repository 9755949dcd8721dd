"""An RTSP camera on 127.0.0.1 that plays a clip for ever: H.264 over TCP, cut into RTP packets by FFmpeg."""

from __future__ import annotations

import base64
import socket
import socketserver
import threading
import time
from pathlib import Path
from types import TracebackType

import av

SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=camera
c=IN IP4 127.0.0.1
t=0 0
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1; sprop-parameter-sets={}
a=control:track
"""


def parameter_sets(clip: Path) -> str:
    """Return what a decoder must know in advance, in base64: the units in the header of an MP4.

    ISO 14496-15, 5.2.4.1: five bytes, the count in five bits, then length and unit; the same once more.
    """
    with av.open(str(clip)) as container:
        header = container.streams.video[0].codec_context.extradata
    assert header is not None
    units, at = [], 5
    for mask in (0x1F, 0xFF):
        count, at = header[at] & mask, at + 1
        for _ in range(count):
            end = at + 2 + int.from_bytes(header[at : at + 2])
            units.append(base64.b64encode(header[at + 2 : end]).decode())
            at = end
    return ",".join(units)


class RtspServer:
    """Serves `url`; `stall` keeps the connection open and sends nothing more, `stop` closes it."""

    def __init__(self, clip: Path, *, port: int = 0) -> None:
        self._over = threading.Event()
        self._stalled = threading.Event()
        server = self

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                server._talk(self)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._clip = clip
        self._server = Server(("127.0.0.1", port), Session)
        self.port = int(self._server.server_address[1])
        self.url = f"rtsp://127.0.0.1:{self.port}/live"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stall(self) -> None:
        self._stalled.set()

    def stop(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _talk(self, session: socketserver.StreamRequestHandler) -> None:
        """Answer the requests of a player (RFC 2326), and stream after PLAY."""
        try:
            while request := session.rfile.readline().decode():
                method, *_ = request.split()
                fields = {}
                while line := session.rfile.readline().decode().strip():
                    key, _, value = line.partition(":")
                    fields[key.lower()] = value.strip()
                head = f"RTSP/1.0 200 OK\r\nCSeq: {fields['cseq']}\r\nSession: 1\r\n"
                if method == "DESCRIBE":
                    body = SDP.format(parameter_sets(self._clip)).replace("\n", "\r\n")
                    head += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                elif method == "SETUP":
                    head += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"
                else:
                    head += "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n"
                session.wfile.write(head.encode())
                if method == "PLAY":
                    self._play(session)
                    return
        except OSError:
            return  # the player has gone

    def _play(self, session: socketserver.StreamRequestHandler) -> None:
        """Let FFmpeg send the film to a port of ours, and pass its packets on inside the connection."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind(("127.0.0.1", 0))
            receiver.settimeout(0.2)
            film = threading.Thread(target=self._film, args=(receiver.getsockname()[1],), daemon=True)
            film.start()
            while not self._over.is_set():
                try:
                    packet = receiver.recv(65_536)
                except TimeoutError:
                    continue
                if not self._stalled.is_set():
                    session.wfile.write(b"$\0" + len(packet).to_bytes(2) + packet)
            film.join()

    def _film(self, port: int) -> None:
        started_s, lap_s = time.monotonic(), 0.0
        with av.open(f"rtp://127.0.0.1:{port}?pkt_size=1400", "w", format="rtp") as out:
            stream = None
            while not self._over.is_set():
                with av.open(str(self._clip)) as clip:
                    track = clip.streams.video[0]
                    stream = stream or out.add_stream_from_template(track)
                    end_s = 0.0
                    for packet in clip.demux(track):
                        if packet.dts is None or packet.pts is None:
                            continue
                        at_s = float(packet.dts * packet.time_base)
                        end_s = at_s + float((packet.duration or 0) * packet.time_base)
                        if self._over.wait(max(0.0, started_s + lap_s + at_s - time.monotonic())):
                            return
                        shift = round(lap_s / packet.time_base)
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        out.mux(packet)
                lap_s += end_s
