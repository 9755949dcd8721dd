"""Random inputs for everything that reads what others wrote; `make fuzz` runs all targets.

Each target is a module with one `Target`: `generate` makes an input, `open` starts its reader. `run.py`
shares the time between the targets and prints the table of `tally.py`. `supervisor.py` runs each target in
a child process (`worker.py`), which may crash or hang. An input with a finding is saved and can be repeated.
`test_fuzz.py` is the short form. `tests/edge/test_config_fuzz.py` has property tests of configurations.
"""
