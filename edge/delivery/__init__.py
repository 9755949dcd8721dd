"""Delivery to MQTT: events to disk, then to the broker; states and discovery as retained messages.

`announcer` turns each moment of the scene into events and states, by the `cadence` of each topic; `status` is
the state of the daemon.
An event goes `outbox/writer` -> `outbox/queue` (`Outbox.append_many` writes it to disk) -> `mqtt/send_queue`
-> `mqtt/connection`. A state goes `publisher`, which keeps the newest payload of each topic ->
`mqtt/connection`. `messages` builds every payload; `schemas/` describes them. `subscriber` and `consumer`
receive; `embedded_broker` runs nats-server for the demo and the tests.

From outside: `Publisher`, `open_outbox`, `OutboxWriter`, `messages`, `DiscoveryPublisher`, `Listener`,
`EmbeddedBroker`, and `Message` and `ConnectionState` of `mqtt`.
"""
