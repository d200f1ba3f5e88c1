"""Whether a flood fills the connection tracking table, when, and what the kernel then drops. Pure.

:mod:`.table` is the table of one host, :mod:`.flows` counts the new flows of a capture, :mod:`.formulas` has the
arithmetic, :mod:`.outlook` the answer and :mod:`.words` its sentences.
"""
