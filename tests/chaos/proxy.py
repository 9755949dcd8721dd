"""A network that can be broken: a TCP proxy that swallows, delays and forgets."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from types import TracebackType

CHUNK_BYTES = 2048


class Proxy:
    """Relays connections from 127.0.0.1:`port` to a broker, on a thread of its own.

    `cut` loses everything from now on, as a pulled cable does: neither side is notified. After `mend` both
    sides get what the other one sent meanwhile, as TCP repeats it. `forget` makes only present connections
    half-open: they stay silent for ever, new ones work. `slow` limits how many bytes a second pass each way.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self._target = (host, port)
        self._bytes_per_s = float("inf")
        self._delay_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._forgotten: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def cut(self) -> None:
        """Let nothing through, without notifying either side."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def mend(self) -> None:
        """Let everything through again."""
        self._loop.call_soon_threadsafe(self._open.set)

    def slow(self, bytes_per_s: float, delay_s: float) -> None:
        """Limit the bytes per second and delay each; (inf, 0) is a fast network again."""
        self._bytes_per_s, self._delay_s = bytes_per_s, delay_s

    def forget(self) -> None:
        """Turn the present connections half-open."""
        self._loop.call_soon_threadsafe(lambda: self._forgotten.update(self._tasks))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open.is_set():
            # A cable that is pulled loses the SYN; here it came through, and nothing more of it may.
            await self._open.wait()
            writer.close()
            return
        try:
            upstream = await asyncio.open_connection(*self._target)
        except OSError:  # the broker is down
            writer.close()
            return
        both = [
            self._loop.create_task(self._relay(reader, upstream[1])),
            self._loop.create_task(self._relay(upstream[0], writer)),
        ]
        self._tasks.update(both)
        with suppress(asyncio.CancelledError):  # the proxy ends
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        self._tasks.difference_update(both)
        for task in both:
            task.cancel()
        for end in (writer, upstream[1]):
            end.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if me in self._forgotten:
                    await asyncio.Event().wait()
                await self._open.wait()
                await asyncio.sleep(self._delay_s + len(data) / self._bytes_per_s)
                writer.write(data)
                await writer.drain()
