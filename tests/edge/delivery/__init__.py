"""Tests of `edge/delivery`."""
