"""The engine: what is too slow in Python, in C (``engine/``), through ctypes.

``library.py`` loads it. Each other module declares the functions of one purpose, turns numpy arrays into their
arguments, and decides nothing.
"""
