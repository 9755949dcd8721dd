"""Tests of `edge/daemon`."""
