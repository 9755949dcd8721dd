"""Tests of `edge/delivery/outbox`."""
