"""Tests of `edge/voice`."""
