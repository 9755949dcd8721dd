"""One module a command of `emotion-edge`; `edge/__main__.py` parses the arguments and calls it.

`doctor/`, `bench/` and `integrations/` are commands with several files; `console` prints tables for all of
them. Each module is imported when its command runs, so that `--help` stays fast. Nothing else in `edge`
imports from here.
"""
