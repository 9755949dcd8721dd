"""Converts a trained Keras model into a verified TFLite model, on a workstation.

`__main__` reads the command line. `jobs` runs one conversion in a child process, `conversion`: it reads the
model (`source`, `keras_file`) within a limit of memory (`memory`), rewrites recurrent layers (`recurrent`,
`cells`, `fused`, `streaming`), reads examples (`calibration`), quantizes (`ranges`), and shortens names
(`tensor_names`). `cards` enters the file into its card. The other commands are modules of their name:
`verify`, `report` (with `layer_noise`, `labelled_set` and `comparison`), `lint` (with `graph`, `targets` and
`edgetpu`), `expose` and `bench`; `tables` prints results.

May import `models` and `edge`; neither imports this package. TensorFlow and Keras are imported only when a
command needs them.
"""
