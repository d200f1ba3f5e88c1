"""Untracked policy in XDP: the leading entries of an interface, before the raw table that has every entry as well.

``compile`` and ``tables`` (pure) make the contents of the program's maps; ``state`` says how they lie pinned, reads
them back and watches them; ``converge`` and ``apply`` reconcile; ``backend`` is what others use.
"""
