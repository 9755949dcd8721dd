"""Counts the open event streams of the page.

Imports the web stack, so the routes import it late.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

MAX_STREAMS = 8


class Streams:
    """Opens at most `limit` streams at once. One counts from its acceptance to the end of its response."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self.limit = limit
        self._lock = threading.Lock()  # requests are accepted on several threads
        self._open = 0

    def open(self, messages: AsyncIterator[bytes], *, headers: Mapping[str, str]) -> StreamingResponse | None:
        """Return the response that sends the messages; None if too many streams are open."""
        with self._lock:
            if self._open >= self.limit:
                return None
            self._open += 1
        return _Stream(messages, headers, self._close)

    def _close(self) -> None:
        with self._lock:
            self._open -= 1


class _Stream(StreamingResponse):
    """A response that reports its end, also where the client leaves before the first message."""

    def __init__(
        self, messages: AsyncIterator[bytes], headers: Mapping[str, str], on_end: Callable[[], None]
    ) -> None:
        super().__init__(messages, media_type="text/event-stream", headers=headers)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()
