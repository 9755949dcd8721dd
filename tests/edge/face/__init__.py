"""Tests of `edge/face`."""
