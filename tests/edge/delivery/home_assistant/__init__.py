"""Tests of `edge/delivery/home_assistant`."""
