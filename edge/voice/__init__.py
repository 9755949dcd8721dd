"""Samples -> windows -> features -> probabilities.

`windows` runs voice activity detection, computes MFCC frames once for each hop, adds the pitch of `pitch`,
and yields sliding windows with the share of speech in each.

From outside: `edge.pipeline.VoicePipeline`; training uses `windows` too, so both have the same features.
"""
