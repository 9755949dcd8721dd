"""The queue on disk between the daemon and the broker.

`writer` takes events from any thread and appends them in groups; `queue` is the order, the bounds and the
numbering; `file` is the one SQLite database below it. `dead_letters` is what `emotion-edge outbox` does
beside a running daemon.
"""
