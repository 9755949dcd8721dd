"""`emotion-edge doctor`: checks of this device in stages; each failure has a remedy to type.

`report` runs the command. `checks` lists all checks in order and calls `models`, `sources`, `device` and
`brokers`; each check yields values of `finding`. `service` finds the running daemon. `bundle` packs a bug
report, in which `scrub` hides everything private.
"""
