"""Tests of `edge/delivery/mqtt`."""
