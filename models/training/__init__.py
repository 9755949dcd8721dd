"""How a network is trained: engine, epochs with checkpoints, folds, augmentation and teachers.

`engine` runs a Keras network on PyTorch kernels, `epochs` resumes a killed run, `folds` trains one model a
fold. `augmentation`, `rooms` and `eye_views` vary the examples; `teacher` and `slim` make small networks
from large ones. Imports `models.data` and `edge`.
"""
