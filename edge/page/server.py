"""Serves the status page, `/metrics`, `/healthz` and `/readyz`, on loopback unless a token protects them."""

from __future__ import annotations

import errno
import hmac
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.errors import ConfigError
from edge.health import Health
from edge.page.routes import page_routes
from edge.page.view import PageView
from edge.settings import DashboardSettings

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger(__name__)

RETRY_S = 60.0
REASONS = {
    errno.EADDRINUSE: "port_in_use",
    errno.EADDRNOTAVAIL: "no_address",
    errno.EACCES: "no_permission",
}
LOCAL_NAMES = ["127.0.0.1", "localhost", "[::1]"]
LOGGERS = ("uvicorn.error", "asyncio")


@dataclass(slots=True)
class Dashboard:
    """The web server on a thread of its own; a port in use degrades the daemon and is tried again.

    The web stack is imported after `start`, so that the first prediction does not wait for it.
    """

    settings: DashboardSettings
    view: PageView
    health: Health
    token: str | None = None
    retry_s: float = RETRY_S
    _stop: threading.Event = field(default_factory=threading.Event)
    _server: Any = None

    def start(self) -> None:
        """Serve in the background, unless `dashboard.bind` is none."""
        if self.settings.address is not None:
            thread = threading.Thread(target=self._run, name="dashboard", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads: the daemon runs on without its page
                log.error("dashboard.bind %s: %s; there is no page", self.settings.bind, error)
                self.health.fault("dashboard", "internal", f"dashboard.bind {self.settings.bind}: {error}")

    def close(self) -> None:
        """Stop serving; requests in progress end with the process."""
        self._stop.set()
        if self._server is not None:
            self._server.should_exit = True

    def _run(self) -> None:
        try:
            while (listener := self._listen()) is None:
                if self._stop.wait(self.retry_s):
                    return
            with listener:
                self._serve(listener)
        except Exception:  # outermost loop: the daemon runs on without its page
            log.exception("dashboard.bind %s: internal error, the page is gone", self.settings.bind)
            self.health.fault("dashboard", "internal", f"dashboard.bind {self.settings.bind}: see the log")

    def _listen(self) -> socket.socket | None:
        address = self.settings.address
        assert address is not None, "`start` checks it"
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            listener = socket.create_server((address.host, address.port), family=family)
        except OSError as error:
            reason = REASONS.get(error.errno or 0, "no_address")
            detail = f"dashboard.bind {self.settings.bind}: {error.strerror}; choose another, or none"
            self.health.fault("dashboard", reason, detail)
            return None
        self.health.clear("dashboard")
        return listener

    def _serve(self, listener: socket.socket) -> None:
        import uvicorn

        from edge.page.connections import ACCEPT_AT_ONCE, BoundedProtocol, RepeatFilter

        config = uvicorn.Config(
            build_app(self.view, token=self.token),
            loop="asyncio",
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            backlog=ACCEPT_AT_ONCE,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=1,
        )
        self._server = server = uvicorn.Server(config)
        if not self._stop.is_set():
            log.info("page: http://%s/", self.settings.bind)
            repeats = RepeatFilter()
            for name in LOGGERS:
                logging.getLogger(name).addFilter(repeats)
            try:
                server.run(sockets=[listener])
            finally:
                for name in LOGGERS:
                    logging.getLogger(name).removeFilter(repeats)


def read_token(settings: DashboardSettings) -> str | None:
    """Return the token that requests must send as `Authorization: Bearer`; None without a `token_file`."""
    path = settings.token_file
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"dashboard.token_file {path}: {error}; check owner and permissions") from None
    if not token:
        raise ConfigError(f"dashboard.token_file {path}: empty; write a long random word into it")
    return token


def build_app(view: PageView, *, token: str | None) -> Starlette:
    """Return the ASGI application; without a token it answers only requests to a loopback name."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from edge.page.metrics import CONTENT_TYPE, render_metrics

    def guarded(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
        # Starlette runs plain functions on its thread pool, so SQLite may block here.
        def endpoint(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode("latin-1")  # undecoded
            if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
                return JSONResponse(
                    {"error": "send the content of dashboard.token_file as `Authorization: Bearer`"},
                    status_code=401,
                    headers={"WWW-Authenticate": "Bearer"},
                )
            return answer(request)

        return endpoint

    def metrics(_request: Request) -> Response:
        return Response(render_metrics(view.snapshot()), media_type=CONTENT_TYPE)

    def healthz(_request: Request) -> Response:
        stuck = view.stuck()
        return JSONResponse({"ok": not stuck, "stuck": stuck}, status_code=503 if stuck else 200)

    def readyz(_request: Request) -> Response:
        is_connected = view.is_connected
        is_ready = is_connected and not view.stuck()
        body = {"ready": is_ready, "connected": is_connected, **view.status}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    routes = [
        Route("/metrics", guarded(metrics)),
        Route("/healthz", guarded(healthz)),
        Route("/readyz", guarded(readyz)),
        *page_routes(view, guarded),
    ]
    # DNS rebinding: a foreign page that resolves its own name to this device sends that name as Host.
    local_only = [Middleware(TrustedHostMiddleware, allowed_hosts=LOCAL_NAMES)] if token is None else []
    return Starlette(routes=routes, middleware=local_only)
