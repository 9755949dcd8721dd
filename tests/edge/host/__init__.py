"""Tests of `edge/host`."""
