"""``python -m enforcer.cli``."""

from enforcer.cli.main import main

main()
