"""predicted == observed, packet by packet."""

from dossim.verify.compare import verify as verify
from dossim.verify.verification import EntryRow as EntryRow
from dossim.verify.verification import Mismatch as Mismatch
from dossim.verify.verification import StageCount as StageCount
from dossim.verify.verification import StateCount as StateCount
from dossim.verify.verification import Verification as Verification
