"""Samples -> windows -> features -> probabilities.

`windows` cuts the samples into sliding windows. For each hop, `activity` detects speech, and `features`
computes the MFCC frames of a window with speech once, with the pitch of `pitch`. `model_input` normalizes a
window for the voice model.

From outside: `edge.pipeline.VoicePipeline`; training uses the same modules, so both have the same features.
"""
