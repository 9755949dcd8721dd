"""Readers of the data sets, splits without shared people, and synthetic or corrupted examples.

`datasets` reads faces, `speech` voices, `eye_sets` eyes and mouths, `report_pictures` and `report_examples`
the data of the project report. `splits` keeps people apart. `face_crops` crops as the device does.
`expression_sequences` and `synthetic_blinks` compose examples that no data set has; `corruption` degrades
test examples. Imports `edge` and the top level of `models`.
"""
