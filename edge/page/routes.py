"""The status page: static files, one stream of what is there now, and three buttons."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from edge.host.conditions import names_of
from edge.page.live_view import LiveView, View
from edge.values import encode

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from edge.page.metrics import Snapshot

FILES = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    # Nothing from elsewhere, nothing inline; pictures are those of the preview, which come as blobs.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TICK_S = 0.25
HOUR_EVERY_S = 15.0  # the strip moves a quarter of a pixel in this time
MAX_STREAMS = 8
MAX_BODY = 64  # bytes of {"on": false}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the daemon knows of itself and the page shows; called on the server's threads.

    `now(view)` returns everything of the schema `page` that is not the board's. `switch(part, is_on)`
    returns False for a part that this device has not; `preview(is_on)` where no preview may be had. Without
    `has_boxes` the page does not show where people are: it shows only what the broker may have.
    """

    board: LiveView
    now: Callable[[View], dict[str, Any]]
    switch: Callable[[str, bool], bool]
    preview: Callable[[bool], bool]
    has_boxes: bool


def describe(now: Snapshot, view: View) -> list[list[str]]:
    """Return what a person wants to know of the device, as (name, sentence); names are those of faults."""
    facts = []
    if "camera" in now.switches:
        facts.append(["camera", f"{view.fps:.1f} pictures a second" if now.switches["camera"] else "off"])
    if "microphone" in now.switches:
        facts.append(["microphone", _heard(view) if now.switches["microphone"] else "off"])
    facts.append(["accelerator", ", ".join(f"{name} ({task})" for task, name in now.backends.items())])
    stages = [
        (stage, now.latency_ms[stage]) for stage in ("see", "hear", "publish") if stage in now.latency_ms
    ]
    times = [f"{stage} {values['p50']:.0f} ms" for stage, values in stages]
    facts.append(["latency", ", ".join(times) or "nothing measured yet"])
    if now.outbox is None:
        facts.append(["outbox", "not writable"])
    else:
        box = now.outbox
        facts.append(["outbox", f"{box.waiting} waiting, {box.refused} refused, {box.dropped} dropped"])
    facts += _device(now.counters)
    minutes = int(now.uptime_s // 60)
    facts.append(["uptime", f"{minutes // 1440} d {minutes // 60 % 24} h {minutes % 60} min"])
    return facts


def _device(numbers: Mapping[str, int | float]) -> list[list[str]]:
    """Return what is known of the device itself."""
    facts = []
    if "temperature_c" in numbers:
        factor = numbers.get("frame_rate_factor", 1)
        spared = f", camera slowed to {factor:.0%}" if factor < 1 else ""
        facts.append(["device", f"{numbers['temperature_c']:.0f} °C{spared}"])
    if "throttled" in numbers:
        limits = names_of(int(numbers["throttled"]))
        facts.append(["power", ", ".join(name.replace("_", " ") for name in limits) or "good"])
    if "rss_bytes" in numbers:
        facts.append(["memory", f"{numbers['rss_bytes'] / 1e6:.0f} MB"])
    if "disk_free_bytes" in numbers:
        facts.append(["disk", f"{numbers['disk_free_bytes'] / 1e9:.1f} GB free"])
    if "clock_synchronised" in numbers:
        facts.append(["clock", "synchronised" if numbers["clock_synchronised"] else "not synchronised"])
    return facts


def _heard(view: View) -> str:
    return "nothing heard" if view.level_db is None else f"listening, {view.level_db:.0f} dB"


def message(facts: Facts, view: View, *, with_hour: bool) -> dict[str, Any]:
    """Return one message of the stream; `hour` is None where the one before still stands."""
    now = facts.now(view)
    return {
        **now,
        "boxes": [{"subject": box.subject, "box": list(box.box)} for box in view.boxes if facts.has_boxes],
        "frame": None if view.size_px is None else {"width": view.size_px[0], "height": view.size_px[1]},
        "level_db": view.level_db,
        "hour": [list(change) for change in view.hour] if with_hour else None,
        "preview_s": view.preview_s if now["preview_s"] is not None else None,
    }


def page_routes(
    facts: Facts, guarded: Callable[[Callable[[Request], Response]], Callable[[Request], Response]]
) -> list[BaseRoute]:
    """Return the routes; `guarded` refuses who has no token. The files themselves hold nothing to guard."""
    import asyncio

    from starlette.concurrency import run_in_threadpool
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    texts = {
        name: (resources.files("edge.page") / "web" / file).read_bytes() for name, (file, _) in FILES.items()
    }
    streams: set[object] = set()

    def file_of(name: str) -> Callable[[Request], Response]:
        return lambda _request: Response(texts[name], media_type=FILES[name][1], headers=HEADERS)

    async def messages() -> AsyncIterator[bytes]:
        me = object()
        streams.add(me)
        hour_s, newest = float("-inf"), ""
        try:
            while True:
                view = facts.board.view(time.monotonic_ns())
                last = view.hour[-1][1] if view.hour else ""
                with_hour = last != newest or time.monotonic() - hour_s > HOUR_EVERY_S
                if with_hour:
                    hour_s, newest = time.monotonic(), last
                told = encode(await run_in_threadpool(message, facts, view, with_hour=with_hour))
                yield b"data: " + told + b"\n\n"
                await asyncio.sleep(TICK_S)
        finally:
            streams.discard(me)

    def stream(_request: Request) -> Response:
        if len(streams) >= MAX_STREAMS:
            return PlainTextResponse(f"{MAX_STREAMS} pages are open already; close one", 503)
        return StreamingResponse(messages(), media_type="text/event-stream", headers=HEADERS)

    def picture(_request: Request) -> Response:
        packed = facts.board.picture(time.monotonic_ns())
        if packed is None:
            return PlainTextResponse("no preview runs, or no picture came yet", 404)
        return Response(packed, media_type="image/jpeg", headers=HEADERS)

    def pressed(act: Callable[[bool], bool]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            refusal = guarded(lambda _request: Response())(request)
            if refusal.status_code != 200:
                return refusal
            is_on = await _read_choice(request)
            if isinstance(is_on, str):
                return PlainTextResponse(is_on, 400)
            if not await run_in_threadpool(act, is_on):
                return PlainTextResponse("this device has no such part, or does not allow it", 409)
            return Response(status_code=204, headers=HEADERS)

        return endpoint

    return [
        *(Route(f"/{name}", file_of(name)) for name in FILES),
        Route("/stream", guarded(stream)),
        Route("/preview.jpg", guarded(picture)),
        Route("/camera/enabled", pressed(lambda on: facts.switch("camera", on)), methods=["POST"]),
        Route("/microphone/enabled", pressed(lambda on: facts.switch("microphone", on)), methods=["POST"]),
        Route("/preview", pressed(facts.preview), methods=["POST"]),
    ]


async def _read_choice(request: Request) -> bool | str:
    """Return `on` of the JSON body, or why it is refused: another site's page must not press our buttons."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        return "asked for by the page of another site"
    # Only this type makes a browser ask us before it sends another site's request.
    if request.headers.get("content-type") != "application/json":
        return 'send {"on": true} or {"on": false} as application/json'
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            return f"more than {MAX_BODY} bytes"
    try:
        choice = json.loads(body)
    except ValueError:
        choice = None
    if not isinstance(choice, Mapping) or not isinstance(choice.get("on"), bool) or len(choice) != 1:
        return 'send {"on": true} or {"on": false}'
    return bool(choice["on"])
