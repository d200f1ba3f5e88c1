"""``--csv`` and ``--parquet``: one row for each packet, written while the capture is read."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dossim.cli.replaced import Replaced
from dossim.report.packets import COLUMNS, Cells, rows_of
from enforcer.model.errors import HostError
from enforcer.model.printable import printable_lines

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dossim.predict import Prediction
    from dossim.predict.batches import Decided

    I64 = npt.NDArray[np.int64]

_ROW_GROUP = 1 << 20  # rows


class Rows:
    """Rows of :mod:`dossim.report.packets`, in the order in which ends become known: packets that have to wait for
    others, as fragments do, come after later ones.
    """

    sees_all = True

    def __init__(self, path: str) -> None:
        self.target = Replaced(path)
        self.can_start_again = self.target.can_start_again

    def start(self) -> None:
        self.target.start()

    def see(self, decided: Decided) -> None:
        """As Watcher has it."""
        self.add(decided.packets.record, decided.prediction, decided.later)

    def add(self, numbers: I64, prediction: Prediction, later: Prediction | None) -> None:
        """The rows of these packets."""
        raise NotImplementedError

    def tell(self, done: int, total: int | None) -> None:
        """As Watcher has it."""

    def finish(self) -> None:
        """Everything has been seen."""
        self.target.finish()

    def discard(self) -> None:
        """Leave nothing behind."""
        self.target.discard()


class CsvRows(Rows):
    """As CSV with a header."""

    def start(self) -> None:
        super().start()
        self.target.write(self._text(COLUMNS))

    def add(self, numbers: I64, prediction: Prediction, later: Prediction | None) -> None:
        lines: dict[Cells, bytes] = {}
        out = io.BytesIO()
        for record, cells in rows_of(numbers, prediction, later):
            line = lines.get(cells)
            if line is None:
                line = lines[cells] = b"," + self._text(cells)
            out.write(b"%d" % record + line)
        self.target.write(out.getvalue())

    def _text(self, row: Sequence[str]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(row)
        line = text.getvalue()
        return (printable_lines(line) if self.target.is_stdout else line).encode()


class ParquetRows(Rows):
    """As Parquet, in row groups of a million. Raises HostError without pyarrow."""

    def __init__(self, path: str) -> None:
        require_pyarrow()
        super().__init__(path)
        self._arrow, self._parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        text = self._arrow.string()
        self._schema = self._arrow.schema([("packet", self._arrow.int64()), *((name, text) for name in COLUMNS[1:])])
        self._sink = _Sink(self.target)
        self._writer: Any = None

    def start(self) -> None:
        self._sink.is_abandoned = True
        super().start()
        self._records: list[int] = []
        self._cells: list[Cells] = []
        self._sink = _Sink(self.target)
        self._writer = self._parquet.ParquetWriter(self._sink, self._schema)

    def add(self, numbers: I64, prediction: Prediction, later: Prediction | None) -> None:
        for record, cells in rows_of(numbers, prediction, later):
            self._records.append(record)
            self._cells.append(cells)
        if len(self._records) >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        columns = [self._records, *zip(*self._cells, strict=True)]
        self._writer.write_table(self._arrow.table(dict(zip(COLUMNS, columns, strict=True)), schema=self._schema))
        self._records, self._cells = [], []

    def finish(self) -> None:
        if self._records:
            self._flush()
        self._writer.close()
        super().finish()

    def discard(self) -> None:
        self._sink.is_abandoned = True
        super().discard()


class _Sink(io.RawIOBase):
    """What pyarrow writes to. A writer that was not closed writes an end when it is collected: nothing, once the sink
    ``is_abandoned``.
    """

    def __init__(self, target: Replaced) -> None:
        self._target, self._at = target, 0
        self.is_abandoned = False

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        content = bytes(content)
        if not self.is_abandoned:
            self._target.write(content)
        self._at += len(content)
        return len(content)

    def tell(self) -> int:
        return self._at


def require_pyarrow() -> None:
    """Raises HostError where it is not installed."""
    if find_spec("pyarrow") is None:
        raise HostError(
            "--parquet needs the package pyarrow, which is not installed; pip install 'dossim[parquet]', or use --csv"
        )
