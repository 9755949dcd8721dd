"""HTTP: the status page, `/metrics`, `/healthz` and `/readyz`.

`server` binds the socket and checks the token; `routes` answers requests and streams; `view` is the one
object that knows the daemon for them; `live_view` holds what only the page shows (boxes, level, last hour,
preview); `metrics` is the Prometheus exposition; `web/` has the static files.
"""
