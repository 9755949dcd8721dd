"""The daemon of `emotion-edge run`: wiring, and the code between the rooms.

`daemon` opens and connects everything and runs the clock. `workers` opens camera and microphone. `handlers`
take frames, audio and faults to the scene and the topics. `device_switch` closes a device for a `set`
message.

From outside: `Daemon`.
"""

from edge.daemon.daemon import Daemon

__all__ = ["Daemon"]
