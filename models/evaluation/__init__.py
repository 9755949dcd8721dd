"""`emotion-models evaluate`: the shipped TFLite files on held-out people, with the code of the device.

`face_sets` and `voice_sets` select held-out examples (`held_out_sets`), `predictions` runs the models and
computes their figures, `evaluate` collects them. `measures` lists the further measures, one module each in
`figures/`. `targets` and `peers` are what results are compared with; `show` prints tables, `page/` writes
one HTML page. Imports every other room of `models`.
"""
