"""On the device: capture, features, inference, fusion and delivery.

`edge/README.md` has the rooms and the flows. Top level, for every room: `values` are what flows, from a
frame to an event. `settings` declares the configuration, `config` reads it. `policy` decides what may
leave the device, `health` keeps faults and progress, `errors` has the exit codes. `secrets` and `masking`
protect credentials. `files`, `hosts`, `backoff`, `latency`, `log_once` and `native_output` are small
helpers. `pipeline` is wiring.
"""

__version__ = "0.1.0"
