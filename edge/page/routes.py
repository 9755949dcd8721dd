"""The routes of the status page: static files, the stream of live data, the preview and three buttons."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from edge.page.view import PageView
from edge.values import PARTS, encode

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

FILES = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    # Nothing from other hosts and nothing inline; the images are those of the preview, as blobs.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TICK_S = 0.25
HOUR_EVERY_S = 15.0  # the chart of the last hour moves by a quarter of a pixel in this time
MAX_BODY = 64  # bytes of {"on": false}


def page_routes(
    view: PageView, guarded: Callable[[Callable[[Request], Response]], Callable[[Request], Response]]
) -> list[BaseRoute]:
    """Return the routes; `guarded` refuses requests without the token.

    The static files need no token: they hold nothing about the device.
    """
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    from edge.page.streams import Streams

    texts = {
        name: (resources.files("edge.page") / "web" / file).read_bytes() for name, (file, _) in FILES.items()
    }
    streams = Streams()

    def static_file(name: str) -> Callable[[Request], Response]:
        return lambda _request: Response(texts[name], media_type=FILES[name][1], headers=HEADERS)

    def stream(request: Request) -> Response:
        opened = streams.open(_messages(view, _session(request)), headers=HEADERS)
        if opened is None:
            return PlainTextResponse(f"{streams.limit} pages are open already; close one", 503)
        return opened

    def preview(request: Request) -> Response:
        jpeg = view.preview_jpeg(_session(request))
        if jpeg is None:
            return PlainTextResponse("this session has no preview, or it has no frame yet", 404)
        return Response(jpeg, media_type="image/jpeg", headers=HEADERS)

    return [
        *(Route(f"/{name}", static_file(name)) for name in FILES),
        Route("/stream", guarded(stream)),
        Route("/preview.jpg", guarded(preview)),
        *(
            Route(f"/{part}/enabled", _button(_switch(view, part), guarded), methods=["POST"])
            for part in PARTS
        ),
        Route(
            "/preview",
            _button(lambda request, is_on: view.set_preview(_session(request), is_on), guarded),
            methods=["POST"],
        ),
    ]


def _session(request: Request) -> str:
    """Return the random word that each open page sends, which identifies it."""
    return str(request.headers.get("x-session", ""))


def _switch(view: PageView, part: str) -> Callable[[Request, bool], bool]:
    return lambda _request, is_on: view.switch(part, is_on)


async def _messages(view: PageView, session: str) -> AsyncIterator[bytes]:
    """Yield a server-sent event every `TICK_S`."""
    import asyncio

    from starlette.concurrency import run_in_threadpool

    hour_sent_s, newest = float("-inf"), ""
    while True:
        live = view.live_view.state(time.monotonic_ns())
        emotion = live.hour[-1][1] if live.hour else ""
        with_hour = emotion != newest or time.monotonic() - hour_sent_s > HOUR_EVERY_S
        if with_hour:
            hour_sent_s, newest = time.monotonic(), emotion
        message = encode(await run_in_threadpool(view.message, live, session, with_hour=with_hour))
        yield b"data: " + message + b"\n\n"
        await asyncio.sleep(TICK_S)


def _button(
    press: Callable[[Request, bool], bool],
    guarded: Callable[[Callable[[Request], Response]], Callable[[Request], Response]],
) -> Callable[[Request], Any]:
    """Return the endpoint of a button; `press(request, is_on)` returns False if it does not apply."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import PlainTextResponse, Response

    async def endpoint(request: Request) -> Response:
        refusal = guarded(lambda _request: Response())(request)
        if refusal.status_code != 200:
            return refusal
        is_on = await _read_choice(request)
        if isinstance(is_on, str):
            return PlainTextResponse(is_on, 400)
        if not await run_in_threadpool(press, request, is_on):
            return PlainTextResponse("this device does not have it, does not permit it or has it paused", 409)
        return Response(status_code=204, headers=HEADERS)

    return endpoint


async def _read_choice(request: Request) -> bool | str:
    """Return `on` of the JSON body, or why it is refused: pages of other sites must not press the buttons."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        return "refused: the request comes from a page of another site"
    # Only this type makes a browser send a preflight request before that of another site.
    if request.headers.get("content-type") != "application/json":
        return 'send {"on": true} or {"on": false} as application/json'
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            return f"refused: more than {MAX_BODY} bytes"
    try:
        choice = json.loads(body)
    except ValueError:
        choice = None
    if not isinstance(choice, Mapping) or not isinstance(choice.get("on"), bool) or len(choice) != 1:
        return 'send {"on": true} or {"on": false}'
    return bool(choice["on"])
