"""Brokers, servers, generators and fixtures that several tests use."""
