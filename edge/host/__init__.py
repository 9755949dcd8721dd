"""The device's own health: temperature, power, disk, clock, memory, and the switches of its devices.

`conditions` reads the device, `monitor` draws the conclusions every 5 s, `cooling` lowers the frame rate
while it is hot, `malloc` gives free memory back, `switches` remembers whether camera and microphone may be
opened, `sd_notify` feeds the watchdog of systemd.
"""
