"""The trained models: how they are made, measured and shipped.

Top level: `__main__` and `console` are the command line, `run` has the options of a training run, `cards`
writes cards, `family` finds a model with its fold models, `fetch` downloads the detector weights, `metrics`
computes figures, `readme` writes them into the Markdown tables, `files` writes atomically.

`data` reads the data sets, `training` and `recipes` train, `evaluation` measures, `artifacts/` has the
shipped files. Imports `edge`, whose code computes the features here as on the device.
"""
