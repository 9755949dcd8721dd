"""The daemon of `emotion-edge run`: wiring, and the code between the rooms.

`daemon` opens and connects everything and runs the clock. `handlers` take frames, audio and faults to the
scene and the topics. `device_switch` closes the camera and the microphone.

From outside: `Daemon`.
"""

from edge.daemon.daemon import Daemon

__all__ = ["Daemon"]
