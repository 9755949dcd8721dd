"""Home Assistant's MQTT discovery: `entities` lists what it makes of this device, `discovery` announces it.

`discovery` publishes one retained payload, and again when Home Assistant comes online. From outside:
`DiscoveryPublisher`, `discovery_payload`, `clear_discovery`.
"""
