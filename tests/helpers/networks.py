"""What the tests of training do to a Keras network."""

from __future__ import annotations

from typing import Any

import numpy as np


def shaken(model: Any) -> Any:
    """Give every weight another value, statistics of the normalisation included."""
    random = np.random.default_rng(5)
    model.set_weights([random.uniform(0.1, 0.6, weight.shape) for weight in model.get_weights()])
    return model
