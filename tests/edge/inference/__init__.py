"""Tests of `edge/inference`."""
