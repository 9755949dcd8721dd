"""Daemon, broker, network and disk fail under load."""
