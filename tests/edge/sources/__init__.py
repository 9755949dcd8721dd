"""Tests of `edge/sources`."""
