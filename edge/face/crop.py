"""Cuts pieces out of pictures as the models read them: grey, in [0, 1], without aliasing, level in light."""

from __future__ import annotations

import cv2
import numpy as np

from edge.values import Float32, UInt8

LEVEL_DEVIATION = 0.2  # of levelled crops in [0, 1]; fer2013's own median is 0.21


def cut_grey(pixels: UInt8, forward: Float32, scale: float, out: Float32) -> None:
    """Cut what `forward` (2, 3) maps from `pixels` (h, w, 3) onto `out` (h, w, 1), in [0, 1].

    `scale` is the smallest of the map, in crop pixels a picture pixel.
    """
    height, width = out.shape[:2]
    # What is large is cut larger and averaged down: bilinear sampling alone would alias.
    factor = int(np.clip(np.ceil(1 / scale), 1, 4))
    cut = cv2.warpAffine(
        pixels,
        forward * factor,
        (width * factor, height * factor),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    grey = cv2.cvtColor(cut, cv2.COLOR_RGB2GRAY)
    if factor > 1:
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    np.multiply(grey[..., None], np.float32(1 / 255), out=out, casting="unsafe")


def level(crop: Float32) -> None:
    """Give a crop in [0, 1], in place, the mean 0.5 and the standard deviation 0.2; what is outside is cut.

    A crop of one grey only becomes 0.5 all over.
    """
    deviation = max(float(crop.std()), 1e-3)
    crop -= crop.mean()
    crop *= np.float32(LEVEL_DEVIATION / deviation)
    crop += np.float32(0.5)
    np.clip(crop, 0, 1, out=crop)
