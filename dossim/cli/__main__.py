"""``python -m dossim.cli``."""

from dossim.cli import main

main()
