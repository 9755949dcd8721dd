"""One module for each shipped network: layers, data, targets and the choices made on validation people.

`shipped` lists the recipes by name for `emotion-models train`. `report` and `report_networks` rebuild the
systems of the project report. Imports `models.training`, `models.data` and `edge`.
"""
