"""Nothing is lost on the way out: events to disk, then to the broker; states and discovery retained.

An event goes `outbox/writer` -> `outbox/queue` (SQLite) -> `send_queue` -> `publisher` -> `connection`.
A state goes straight to `publisher`, which keeps the newest payload of each topic. `messages` builds every
payload; `schemas/` describes them. `publish_probe` finds out whether a 3.1.1 broker takes what we publish.
`subscriber` and `consumer` are the other side; `embedded_broker` runs nats-server for the demo.

From outside: `Publisher`, `open_outbox`, `Writer`, `messages`, `Listener`, `EmbeddedBroker`.
"""
