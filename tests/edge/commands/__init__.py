"""Tests of `edge/commands`."""
