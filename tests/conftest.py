"""Fixtures and the skip policy shared by all tests."""
