"""The MQTT client of the device: one connection at a time, opened again whenever it is lost.

Other threads put messages into the `mailbox`; `session` sends them, and the events that `send_queue` takes
from the outbox, on one `connection`. `connection` wraps `paho_client` and tries one broker after the other;
`publisher` waits in between, for the pause that `reconnect` computes; `connection_state` is what the log, the
page and `doctor` know of it. `publish_probe` finds out whether an MQTT 3.1.1 broker accepts what the device
publishes, `size_trial` which sizes it takes, `takeover` whether another client uses the id. `tuning` has all
waits and limits.

`publisher`, one folder up, owns all of these. From outside: `ConnectionState`, `Connector`, `Message`.
"""
