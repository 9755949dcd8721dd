"""The device's own health: temperature, power, disk, clock, memory, and the switches of its devices.

`conditions` reads the device; `monitor` does so every 5 s and reports faults; `cooling` drops frames while
the device is hot; `malloc` returns free memory to the system. `switches` stores whether camera and
microphone may be opened. `sd_notify` pings the watchdog of systemd.

From outside: `Monitor`, `FrameGate`, `Switches`, `read_switches`, `Notifier`, `read_conditions`.
"""
