"""A client of paho's that keeps its socket, reads no huge packet and survives malformed ones."""

from __future__ import annotations

import logging
import socket
import ssl
import struct

import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.enums import MQTTErrorCode

from edge.delivery.mqtt.tuning import TUNING

log = logging.getLogger(__name__)

# What paho-mqtt 2.2 raises for bytes that are no MQTT packet, which may come from any server on the port.
MALFORMED = (MQTTException, ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error)


class PahoClient(paho.Client):
    """Keeps its socket: paho-mqtt 2.2 leaves it open where the websocket handshake fails.

    A packet of more than `max_incoming_bytes` ends the connection before its content is read: an MQTT 3.1.1
    broker knows no maximum. A malformed packet ends the connection too.
    """

    last_socket: socket.socket | None = None
    max_incoming_bytes = TUNING.max_incoming_bytes
    has_oversized = False
    has_malformed = False

    def _sock_recv(self, bufsize: int) -> bytes:
        # paho asks for the whole rest of a packet at once.
        if bufsize > self.max_incoming_bytes:
            self.has_oversized = True
            raise ConnectionAbortedError(f"packet of {bufsize} bytes")
        return super()._sock_recv(bufsize)

    def _packet_handle(self) -> MQTTErrorCode:
        try:
            return super()._packet_handle()
        except MALFORMED as error:
            log.debug("mqtt: malformed packet", exc_info=error)
            self.has_malformed = True
            return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def _create_socket_connection(self) -> socket.socket:
        self.last_socket = super()._create_socket_connection()
        return self.last_socket

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        self.last_socket = wrapped = super()._ssl_wrap_socket(tcp_sock)
        return wrapped
