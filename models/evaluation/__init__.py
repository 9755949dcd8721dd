"""`emotion-models evaluate`: the shipped TFLite files on held-out people, through the code of the device.

`test_sets`, `face_sets` and `voice_sets` select the examples, `answers` runs the models, `metrics` computes
accuracy, UAR and ECE. `figures/` has one module for each further measure, `page/` writes one HTML page.
"""
