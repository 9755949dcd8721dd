"""Home Assistant's MQTT discovery: `entities` describes the device, `discovery` announces it.

`discovery` publishes one retained payload, and again when Home Assistant comes online. From outside:
`DiscoveryPublisher`, `discovery_payload`, `clear_discovery`.
"""
