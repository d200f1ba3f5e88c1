"""What all machines must have in common: what one pickles another has to read, and both have to predict alike."""

from __future__ import annotations

import dossim
from dossim.engine.library import ABI

VERSION = f"dossim {dossim.__version__}, engine interface {ABI}"
