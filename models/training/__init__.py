"""How a network is trained: engine, epochs with checkpoints, folds, augmentation and teachers.

`engine` trains a Keras network with PyTorch kernels (`torch_network`), `epochs` trains with Keras and resumes
a killed run, `folds` trains one model a fold, `patch_models` trains the networks for eyes and mouths. The
`*augmentation` modules vary the examples; `pruning` and `teacher` transfer knowledge between networks.
`embeddings`, `embedding_windows`, `fusion_predictions` and `fusion_pairs` run shipped models to make training
data for the models that combine them. Imports `models.data`, the top level of `models` and `edge`.
"""
