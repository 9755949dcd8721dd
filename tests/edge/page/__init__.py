"""Tests of `edge/page`."""
