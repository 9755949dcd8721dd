"""One module for each shipped network: layers, training data, targets and choices made on validation people.

`catalog` lists the recipes by name for `emotion-models train`. The `report*` modules rebuild the systems of
the project report: `report_baselines` trains the two shipped ones, `report` repeats the report's experiments
with its networks (`report_networks`), figures (`report_results`) and plots (`report_plots`). Imports
`models.training`, `models.data`, the top level of `models` and `edge`.
"""
