"""`emotion-edge doctor`: staged checks of this device; each failure has a remedy to type.

`stages` lists all checks in order; `device`, `sources` and `broker` implement them; `report` prints the
findings; `bundle` packs a bug report, scrubbed by `scrub`.
"""
