"""Pixels and samples come in: cameras, microphones and files, each an iterator of `Frame` or `AudioChunk`.

`camera.open_camera` and `microphone.open_microphone` map a token from the configuration to a driver.
`live_camera` keeps only the newest frame and detects a stuck driver; `driver_threads` isolates driver calls
that may never return; `worker` runs one device, reopens it after a fault and closes it while it is off.
`replay` plays files as devices, `fakes` simulate devices and their failures, `devices` lists the hardware.

From outside: `open_camera`, `open_microphone`, `Worker`, `media_files`, `devices`.
"""
