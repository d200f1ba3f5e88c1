"""predicted == observed, packet by packet: ``compare.verify``. What it found is imported from here."""

from dossim.verify.verification import EntryRow as EntryRow
from dossim.verify.verification import Mismatch as Mismatch
from dossim.verify.verification import StageCount as StageCount
from dossim.verify.verification import StateCount as StateCount
from dossim.verify.verification import Verification as Verification
