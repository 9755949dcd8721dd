"""`emotion-edge bench`: measures each stage and backend, then the whole daemon in a separate process.

`stages` measures single stages, `whole_daemon` runs the daemon on an embedded broker. `targets` compares the
result with the limits, `history` with the last run on this device; `report` prints it.
"""
