"""Who is there, what they show, who speaks and how tired they are; pure: time is an argument.

`fusion` combines the predictions of face and voice (rules and network in `pooling`) and decides when a label
changes. `speaker` matches lips with sound. `fatigue` turns `eyelids` and `gestures` into a level.
`scene` runs them in order for one room.

From outside: `Scene` and the states that it returns.
"""
