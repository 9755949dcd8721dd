"""TFLite: floats in, probabilities out, on the CPU or on an accelerator.

`models` finds the model that the configuration names; its `card` describes it, with the typed `features` of
its input. `classifier` opens it and checks it against the card. `backends` tries an accelerator in a child
process (`trial`) before `engines` opens the file; `backend_selection` times the candidates of `auto`.
`fallback` keeps a model running on the CPU while its accelerator is lost, and `accelerator` brings it back.
`child_processes` ends a child process with its parent.

From outside: `open_model`, `open_optional_model`, `load_card`, `Card`, the specs of `features`,
`TfliteClassifier`, `open_classifier`, `FallbackClassifier`, `Accelerator`, `weights`, `child_processes`.
"""
