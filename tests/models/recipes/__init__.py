"""Tests of `models/recipes`."""
