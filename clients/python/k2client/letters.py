"""What a connection can ask about dead letters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from k2.v1 import dead_letter_service_pb2, dead_letter_service_pb2_grpc
from k2client import records
from k2client.convert import record, trade_message
from k2client.times import Time
from k2client.trades_request import Names, moment, name_of, names_of

_PAGE_SIZE = 1000


class DeadLetterCalls(ABC):
    """The part of `Client` that is about dead letters."""

    _letters: dead_letter_service_pb2_grpc.DeadLetterServiceStub

    @abstractmethod
    def _call(self, method: Any, request: Any, deadline_s: float | None = None) -> Any:  # noqa: ANN401 of any call
        """The answer to a call, tried again where that makes sense."""

    @abstractmethod
    def _pages(self, method: Any, request: Any) -> Iterator[Any]:  # noqa: ANN401 of any list call
        """The pages of a list."""

    def dead_letters(
        self,
        *,
        start: Time | None = None,
        end: Time | None = None,
        fault: str = "",
        origin: str = "",
        limit: int | None = None,
    ) -> list[records.DeadLetter]:
        """Records that K2 could not take, newest first, without their bytes.

        Args:
            start: only those judged from then on.
            end: only those judged before.
            fault: only those with it, such as `TRUNCATED`.
            origin: only those of this topic or run of a feed.
            limit: at most so many.
        """
        request = dead_letter_service_pb2.ListDeadLettersRequest(
            page_size=_PAGE_SIZE if limit is None else min(limit, _PAGE_SIZE),
            fault=name_of("fault", fault),
            origin=name_of("origin", origin),
        )
        if start is not None:
            request.range.start_time.CopyFrom(moment(start))
        if end is not None:
            request.range.end_time.CopyFrom(moment(end))
        found: list[records.DeadLetter] = []
        for page in self._pages(self._letters.ListDeadLetters, request):
            found += [record(records.DeadLetter, each) for each in page.letters]
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    def dead_letter(self, name: str) -> records.DeadLetterContent:
        """One dead letter by its name, with its bytes and what they would be today."""
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
        """Put dead letters back on the tape, as they are or repaired.

        Args:
            names: of the letters, at most 100; one with a repair.
            value: a whole message in the place of the letter's bytes.
            trade: the fields of `records.TradeRecord` instead, times as ISO 8601 texts.
            again: also those that were replayed before.
        """
        request = dead_letter_service_pb2.ReplayDeadLettersRequest(
            names=names_of("names", names), again=again
        )
        if value is not None:
            request.value = value
        if trade is not None:
            request.trade.CopyFrom(trade_message(trade))
        answer = self._call(self._letters.ReplayDeadLetters, request)
        return [record(records.ReplayOutcome, each) for each in answer.outcomes]
