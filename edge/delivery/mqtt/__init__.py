"""The MQTT client of the device: one connection at a time, opened again whenever it is lost.

`connection` wraps paho and tries one broker after the other; `connection_state` is what the log, the page
and `doctor` know of it. `send_queue` decides which event of the outbox goes next; `publish_probe` finds out
whether an MQTT 3.1.1 broker accepts what the device publishes. From outside: `ConnectionState`, `Connector`,
`Message`.
"""
