"""Bounds what HTTP clients can hold: connections, time to send a request, time to take an answer.

Imports the web stack, so the server imports it late.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 64
ACCEPT_AT_ONCE = 32  # connections that asyncio accepts before it serves one
REQUEST_S = 5.0  # for a whole request, from the connection or from the end of the answer before
STALL_S = 5.0  # for a client that takes none of its answer
REPEAT_S = 60.0  # the log has each message of the web server once in this time


class BoundedProtocol(H11Protocol):
    """One connection: its request has a deadline, and it makes room for a newer one while it has no request.

    A connection over the bound replaces the oldest one that waits for a request. If all have requests, it is
    closed at once.
    """

    max_connections = MAX_CONNECTIONS
    request_s = REQUEST_S
    stall_s = STALL_S
    _timer: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _since_s = 0.0
    _is_admitted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection if there is room."""
        if not self._make_room():
            transport.abort()
            return
        self._is_admitted = True
        self._since_s = self.loop.time()
        super().connection_made(transport)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and its deadlines."""
        self._cancel(self._timer)
        self._cancel(self._stall)
        if self._is_admitted:
            super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed request; one whose body is malformed may have a task that answers already."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # its answer is dropped
            self.cycle.message_event.set()
        is_body = self.conn.our_state is not h11.IDLE
        # The refusal has a text, which an answer to HEAD may not have: uvicorn 0.54 sends it all the same.
        if is_body and (self.conn.our_state is not h11.SEND_RESPONSE or self.cycle.scope["method"] == "HEAD"):
            self.transport.close()
        else:
            super().send_400_response(msg)

    def on_response_complete(self) -> None:
        """Start the deadline of the next request."""
        self._expect_request()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Close the connection unless its client soon takes what is buffered."""
        super().pause_writing()
        self._cancel(self._stall)
        self._stall = self.loop.call_later(self.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client takes its answer."""
        self._cancel(self._stall)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also one whose client does not take the end of its answer."""
        self.transport.abort()

    @property
    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self) -> bool:
        if len(self.connections) < self.max_connections:
            return True
        others = (cast(BoundedProtocol, connection) for connection in self.connections)
        idle = [connection for connection in others if not connection._has_request]
        if not idle:
            return False
        oldest = min(idle, key=lambda connection: connection._since_s)
        oldest.transport.abort()
        self.connections.discard(oldest)
        return True

    def _expect_request(self) -> None:
        self._cancel(self._timer)
        self._timer = self.loop.call_later(self.request_s, self._end_unless_received)

    def _end_unless_received(self) -> None:
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self.transport.abort()

    @staticmethod
    def _cancel(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


class RepeatFilter(logging.Filter):
    """Passes each message, by its text without values, once in `REPEAT_S`: clients must not fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_s: dict[Any, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        now_s = time.monotonic()
        if now_s - self._passed_s.get(record.msg, float("-inf")) < REPEAT_S:
            return False
        if len(self._passed_s) >= MAX_CONNECTIONS:
            self._passed_s.clear()
        self._passed_s[record.msg] = now_s
        return True
