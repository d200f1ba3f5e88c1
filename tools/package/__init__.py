"""Builds and tests what is installed: ``./run package``."""
