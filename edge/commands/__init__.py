"""One module a command of `emotion-edge`; `edge/__main__.py` parses the arguments and calls it.

`doctor/` and `bench/` are commands with several files. Nothing else in `edge` imports from here.
"""
