"""What a build asks of a table engine: the sources' tables as typed expressions, and their answers as frames."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd


class Catalog(AbstractContextManager["Catalog"]):
    """The tables of the sources behind one engine; a context manager that closes it and removes what it spilled.

    The same expressions run on every engine, and give equal frames.
    """

    @abstractmethod
    def table(self, name: str) -> ir.Table:
        """The table's used columns, typed as its TableSpec says; absent optional ones are null.

        Raises:
            SourceError: the table is not there or is not what its format says.
        """

    @abstractmethod
    def root(self, source: str) -> Path | None:
        """The directory of a source; None where its files are out of reach."""

    @abstractmethod
    def rows(self, frame: pd.DataFrame) -> ir.Table:
        """A frame as a table of the engine, to be joined with the others."""

    @abstractmethod
    def keep(self, name: str, expression: ir.Table) -> ir.Table:
        """Run an expression once and keep its rows in the engine under `name`, until the catalog is closed."""

    @abstractmethod
    def frame(self, expression: ir.Table) -> pd.DataFrame:
        """Run an expression; integers with nulls stay integers (Int64), times have microseconds."""
