"""Which deny list fits into a budget: the cheapest list of sources and rules against an attack. Pure.

``traffic.py`` reads sources and ports of captures, ``signature.py`` finds what the attack's packets have in common,
``tally.py`` counts both, ``solve.py`` chooses (through :mod:`dossim.engine.cover`), ``measure.py`` says what a list
does, ``forged.py`` whether sources are real, ``documents.py`` writes the list as resources. ``job.py`` is the whole.
"""
