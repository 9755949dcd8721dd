"""On a workstation: turns a trained Keras model into a verified TFLite one."""
