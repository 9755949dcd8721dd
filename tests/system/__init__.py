"""The whole daemon as a process, as systemd and attackers see it."""
