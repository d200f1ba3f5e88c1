"""Untracked policy in XDP: the leading entries of an interface, enforced before raw, which has every entry as well.

``compile`` and ``tables`` (pure) create the contents of the program's maps; ``state`` pins them, reads them back and
watches them; ``converge`` and ``apply`` reconcile; ``backend`` is the interface to the rest of the enforcer.
"""
