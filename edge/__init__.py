"""On the device: capture, features, inference, fusion and delivery."""

__version__ = "0.1.0"
