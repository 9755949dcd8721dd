"""`emotion-edge bench`: times of each stage and backend, then the whole daemon in a process of its own.

`stages` measures, `whole_daemon` runs the daemon beside an embedded broker, `history` compares with the last
run on this device, `targets` compares with the limits.
"""
