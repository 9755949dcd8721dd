"""Tests of `models/training`."""
