"""Everybody in view: who speaks, what they feel and how tired they are. Pure: time is an argument.

`speaker` finds the person whose lips move with the audio. `fusion` combines the predictions of face and voice
by the rules and the network in `pooling`; `decision` turns the result into a label. `fatigue` turns `eyelids`
and `gestures` into a level. `scene` runs them in this order.

From outside: `Scene`, the `Moment` that it returns, and the states in that.
"""
