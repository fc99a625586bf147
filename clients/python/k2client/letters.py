"""Provides the calls of the connection that list, read and replay dead letters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

from k2.v1 import dead_letter_service_pb2, dead_letter_service_pb2_grpc
from k2client import records
from k2client.convert import record, trade_message
from k2client.times import Time
from k2client.trades_request import Names, moment, name_of, names_of

R = TypeVar("R")


class DeadLetterCalls(ABC):
    """The calls of `Client` about dead letters."""

    _letters: dead_letter_service_pb2_grpc.DeadLetterServiceStub

    @abstractmethod
    def _call(self, method: Any, request: Any, deadline_s: float | None = None) -> Any:  # noqa: ANN401 of any call
        """Send a call, with retries, and return its answer."""

    @abstractmethod
    def _list(
        self,
        kind: type[R],
        method: Any,  # noqa: ANN401 any list call
        request: Any,  # noqa: ANN401 any list call
        field: str,
        limit: int | None = None,
    ) -> list[R]:
        """Read the pages of a list, up to `limit` records of that field of each page."""

    def dead_letters(
        self,
        *,
        start: Time | None = None,
        end: Time | None = None,
        fault: str = "",
        origin: str = "",
        limit: int | None = None,
    ) -> list[records.DeadLetter]:
        """List records that K2 could not store as rows, newest first, without their bytes.

        Args:
            start: only letters judged at this time or later.
            end: only letters judged before this time.
            fault: only letters with this fault, such as `TRUNCATED`.
            origin: only letters of this topic or run of a feed.
            limit: the largest number of letters.
        """
        request = dead_letter_service_pb2.ListDeadLettersRequest(
            fault=name_of("fault", fault),
            origin=name_of("origin", origin),
        )
        if start is not None:
            request.range.start_time.CopyFrom(moment(start))
        if end is not None:
            request.range.end_time.CopyFrom(moment(end))
        method = self._letters.ListDeadLetters
        return self._list(records.DeadLetter, method, request, "letters", limit)

    def dead_letter(self, name: str) -> records.DeadLetterContent:
        """Return a dead letter by its name, with its bytes and the result of decoding them now."""
        request = dead_letter_service_pb2.GetDeadLetterRequest(name=name_of("name", name))
        answer = self._call(self._letters.GetDeadLetter, request)
        return record(records.DeadLetterContent, answer)

    def replay_dead_letters(
        self,
        names: Names,
        *,
        value: bytes | None = None,
        trade: Mapping[str, Any] | None = None,
        again: bool = False,
    ) -> list[records.ReplayOutcome]:
        """Send dead letters to the tape again, as they are or repaired.

        Args:
            names: names of the letters, at most 100; exactly one with a repair.
            value: a whole message that replaces the letter's bytes.
            trade: the fields of `records.TradeRecord` instead, times as ISO 8601 texts.
            again: whether to replay letters that were replayed before.
        """
        request = dead_letter_service_pb2.ReplayDeadLettersRequest(
            names=names_of("names", names), again=again
        )
        if value is not None:
            request.value = value
        if trade is not None:
            request.trade.CopyFrom(trade_message(trade))
        answer = self._call(self._letters.ReplayDeadLetters, request)
        return [record(records.ReplayOutcome, outcome) for outcome in answer.outcomes]
