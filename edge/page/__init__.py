"""HTTP: the status page, `/metrics`, `/healthz` and `/readyz`.

`server` binds the socket and checks the token; `routes` answers requests and streams. Both call `view`, the
one object that reads the daemon. `live_view` holds what only the page shows (boxes, level, last hour,
preview); `statistics` collects a `snapshot` of the numbers; `metrics` and `facts` format it; `web/` has the
static files. `connections` bounds connections and their time, `streams` the open event streams.

From outside: `Dashboard`, `PageView`, `LiveView`, `Statistics`.
"""
