"""Holds the answer to a question about trades: a pinned plan, whose rows are read on demand."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
from google.protobuf import json_format

from k2.v1 import market_pb2, query_service_pb2
from k2client import records
from k2client.convert import record
from k2client.deadline import Deadline, Retry
from k2client.errors import Invalid
from k2client.flights import FlightPool, RowReading

PROVENANCE_KEY = b"k2.provenance"


class Trades:
    """Rows in canonical order, pinned: every read within the ticket's life yields the same rows.

    Libraries that take Arrow streams (polars, DuckDB, pandas, pyarrow) take this object itself.

    Attributes:
        estimate: the cost of reading the rows.
    """

    def __init__(
        self,
        plan: query_service_pb2.PlanQueryResponse,
        pool: FlightPool,
        retry: Retry,
        deadline_s: float,
    ) -> None:
        self._plan = plan
        self._pool = pool
        self._retry = retry
        self._deadline_s = deadline_s
        self._provenance = plan.provenance
        self._bare_schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(plan.arrow_schema))
        self.estimate = record(records.Estimate, plan.estimate)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows; its metadata `k2.provenance` is the provenance as JSON.

        Files written with this schema keep the metadata.
        """
        origin = json_format.MessageToJson(
            self._provenance, preserving_proto_field_name=True, indent=None
        )
        return self._bare_schema.with_metadata({PROVENANCE_KEY: origin.encode()})

    @property
    def provenance(self) -> records.Provenance:
        """The origin of the answer; its row counts are known once the rows are read."""
        return record(records.Provenance, self._provenance)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read the rows as they arrive, at most 4 MiB at a time.

        Raises:
            K2Error: the rows cannot be read (further); ANSWER_CHANGED when the stream broke and
                the answer no longer begins with the rows read so far: read it from the start.
        """
        return self._reading().batches(self._plan.endpoints)

    def reader(self) -> pa.RecordBatchReader:
        """Read the rows as a `pyarrow.RecordBatchReader`."""
        return pa.RecordBatchReader.from_batches(self.schema, self.batches())

    def to_arrow(self) -> pa.Table:
        """Read all rows as a pyarrow table; prices and quantities are decimals."""
        rows = self._reading().gathered(self._plan.endpoints)
        return pa.Table.from_batches(rows, self.schema)

    def to_polars(self) -> Any:  # noqa: ANN401 polars is not among the client's dependencies
        """Read all rows as a `polars.DataFrame`; prices and quantities are decimals."""
        return _optional("polars").from_arrow(self.to_arrow())

    def to_pandas(self) -> Any:  # noqa: ANN401 pandas is not among the client's dependencies
        """Read all rows as a `pandas.DataFrame`; prices and quantities are `decimal.Decimal`."""
        _optional("pandas")
        return self.to_arrow().to_pandas()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.reader().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        rows, source = self.estimate.rows, self.provenance.source
        return f"<k2client.Trades: at most {rows} rows, {source}, {self.provenance.completeness}>"

    def _reading(self) -> RowReading:
        return RowReading(
            pool=self._pool,
            deadline=Deadline(self._deadline_s),
            retry=replace(self._retry, silent_attempts_max=None),
            resumable=not self._plan.provenance.missing,
            on_provenance=self._set_provenance,
        )

    def _set_provenance(self, provenance: market_pb2.Provenance) -> None:
        self._provenance = provenance


def _optional(name: str) -> Any:  # noqa: ANN401 a module
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Invalid(
            "BAD_REQUEST", f"{name} is not installed: pip install k2-lakehouse[notebook]"
        ) from error
