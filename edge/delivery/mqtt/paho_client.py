"""A client of paho's that keeps its socket and reads no huge packet."""

from __future__ import annotations

import socket
import ssl

import paho.mqtt.client as paho

from edge.delivery.mqtt.tuning import TUNING


class PahoClient(paho.Client):
    """Keeps its socket: paho-mqtt 2.2 leaves it open where the websocket handshake fails.

    A packet of more than `max_incoming_bytes` ends the connection before its content is read: an MQTT 3.1.1
    broker knows no maximum.
    """

    last_socket: socket.socket | None = None
    max_incoming_bytes = TUNING.max_incoming_bytes
    has_oversized = False

    def _sock_recv(self, bufsize: int) -> bytes:
        # paho asks for the whole rest of a packet at once.
        if bufsize > self.max_incoming_bytes:
            self.has_oversized = True
            raise ConnectionAbortedError(f"packet of {bufsize} bytes")
        return super()._sock_recv(bufsize)

    def _create_socket_connection(self) -> socket.socket:
        self.last_socket = super()._create_socket_connection()
        return self.last_socket

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        self.last_socket = wrapped = super()._ssl_wrap_socket(tcp_sock)
        return wrapped
