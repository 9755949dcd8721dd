"""TFLite: model cards, backends and interpreters; floats in, probabilities out.

A card (`card`) describes an artifact; `backends` opens its file on cpu, gpu, edgetpu or a delegate, after a
`trial` in a child process. `backend_selection` times the candidates of `auto`. `fallback` keeps a model
running on the CPU while its accelerator is lost, and `accelerator` brings it back.

From outside: `Card`, `TfliteClassifier`, `open_classifier`, `FallbackClassifier`, `Accelerator`, `weights`.
"""
