"""Tests of `edge/people`."""
