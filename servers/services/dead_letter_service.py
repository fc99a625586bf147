"""DeadLetterService: records that K2 could not accept, and the replay of repaired ones."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal, InvalidOperation
from typing import Final

import grpc
from google.protobuf import timestamp_pb2

from k2 import limits
from k2.errors import Invalid, Reason
from k2.lake.dead_letters.letter_list import LetterFilter, LetterReader, StoredLetter
from k2.lake.dead_letters.replay import ReadRecord, Replayed, Replayer
from k2.market.events import Fault, Label, Trade
from k2.market.offsets import TimeRange
from k2.market.schema import SIDES
from k2.v1 import dead_letter_service_pb2 as pb
from k2.v1 import dead_letter_service_pb2_grpc as rpc
from servers.services.paging import page_of_newest
from servers.services.wire_values import (
    bad_field,
    is_nameable,
    range_from,
    time_or_unset,
    time_to,
    time_us_from,
)

NAME: Final = pb.DESCRIPTOR.services_by_name["DeadLetterService"].full_name
_SCALE: Final = 8
_DIGITS_MAX: Final = 38


class DeadLetterService(rpc.DeadLetterServiceServicer):
    """Implements `protos/k2/v1/dead_letter_service.proto`.

    Args:
        letters: lists and finds letters.
        replayer: judges their bytes and sends them to the tape again.
    """

    def __init__(self, *, letters: LetterReader, replayer: Replayer) -> None:
        self._letters = letters
        self._replayer = replayer

    def register(self, server: grpc.Server) -> None:
        """Serve on `server`."""
        rpc.add_DeadLetterServiceServicer_to_server(self, server)

    def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: grpc.ServicerContext
    ) -> pb.ListDeadLettersResponse:
        """List the letters that match the request, newest first."""
        wanted = _filter(request)
        stored, token = page_of_newest(
            lambda below: self._letters.newest(wanted, below),
            lambda letter: letter.place,
            request.page_size,
            request.page_token,
        )
        replayed = self._replayer.replayed() if stored else {}
        superseded = self._letters.superseded(stored)
        letters = [_letter(it, replayed.get(it.letter.name), superseded) for it in stored]
        return pb.ListDeadLettersResponse(letters=letters, next_page_token=token)

    def GetDeadLetter(
        self, request: pb.GetDeadLetterRequest, context: grpc.ServicerContext
    ) -> pb.GetDeadLetterResponse:
        """Return one letter with its bytes, and how they are judged at present."""
        stored = self._letters.get(request.name)
        value = stored.letter.value
        reading = self._replayer.read(value)
        replayed = self._replayer.replayed().get(request.name)
        return pb.GetDeadLetterResponse(
            letter=_letter(stored, replayed, self._letters.superseded([stored])),
            value=None if value is None else value[: limits.LETTER_SHOWN_BYTES_MAX],
            value_bytes=len(value or b""),
            fault_now=_fault(reading.fault),
            trade=_trade(reading),
        )

    def ReplayDeadLetters(
        self, request: pb.ReplayDeadLettersRequest, context: grpc.ServicerContext
    ) -> pb.ReplayDeadLettersResponse:
        """Send letters to the tape again, as they are or with one repair."""
        names = list(request.names)
        if not 1 <= len(names) <= limits.LETTERS_REPLAYED_MAX:
            raise Invalid(
                Reason.LIMIT_OUT_OF_BOUNDS,
                f"{len(names)} names; from 1 to {limits.LETTERS_REPLAYED_MAX} are allowed",
                metadata={"field": "names"},
            )
        repaired = self._repaired(request)
        if repaired is not None and len(names) > 1:
            raise bad_field("names", "a repair is of one letter")
        outcomes = [
            self._replayer.replay(name, repaired, again=request.again)
            for name in dict.fromkeys(names)
            if context.is_active()  # not for a caller that has gone
        ]
        return pb.ReplayDeadLettersResponse(outcomes=map(_outcome, outcomes))

    def _repaired(self, request: pb.ReplayDeadLettersRequest) -> bytes | None:
        match request.WhichOneof("repair"):
            case "value":
                return request.value
            case "trade":
                return self._replayer.encode(_trade_from(request.trade))
        return None


def _filter(request: pb.ListDeadLettersRequest) -> LetterFilter:
    times = range_from(request.range) if request.HasField("range") else TimeRange()
    start, end = times.start_us, times.end_us
    if start is not None and end is not None and start > end:
        raise Invalid(
            Reason.RANGE_REVERSED, "range ends before it starts", metadata={"field": "range"}
        )
    if request.fault and request.fault not in Fault.__members__:
        raise bad_field("fault", f"there is no fault {request.fault!r}")
    return LetterFilter(
        times=times,
        fault=Fault[request.fault] if request.fault else None,
        origin=request.origin or None,
    )


def _letter(
    stored: StoredLetter, replayed_us: int | None, overruled: Collection[str]
) -> pb.DeadLetter:
    letter = stored.letter
    return pb.DeadLetter(
        name=letter.name,
        origin=letter.topic,
        origin_epoch=letter.epoch,
        origin_partition=letter.partition,
        origin_offset=letter.offset,
        schema_id=letter.schema_id,
        fault=letter.fault.name,
        error=letter.error,
        judged_time=time_to(letter.at_us),
        letter_offset=stored.offset,
        stored=stored.stored,
        replay_time=time_or_unset(replayed_us),
        overruled=letter.name in overruled,
    )


def _outcome(replayed: Replayed) -> pb.ReplayOutcome:
    return pb.ReplayOutcome(
        name=replayed.name,
        state=pb.ReplayState.Value(f"REPLAY_STATE_{replayed.state}"),
        fault=_fault(replayed.fault),
        message=replayed.message,
        partition=replayed.partition,
        offset=replayed.offset,
    )


def _fault(fault: Fault) -> str:
    return "" if fault is Fault.NONE else fault.name


def _trade(reading: ReadRecord) -> pb.TradeRecord | None:
    trade = reading.trade
    if trade is None:
        return None
    return pb.TradeRecord(
        **trade.label._asdict(),
        trade_id=trade.trade_id,
        event_time=_time(trade.event_time_us),
        receive_time=_time(trade.receive_time_us),
        price=_decimal(trade.price),
        quantity=_decimal(trade.quantity),
        side=SIDES[trade.side],
        vendor_data=trade.vendor_data,
    )


def _trade_from(message: pb.TradeRecord) -> Trade:
    if message.side not in SIDES:
        raise bad_field("trade.side", "side is BUY or SELL")
    return Trade(
        label=Label(
            message.exchange,
            message.symbol,
            message.base,
            message.quote,
            message.asset_class,
            message.source,
        ),
        trade_id=message.trade_id,
        event_time_us=time_us_from(message.event_time, "trade.event_time"),
        receive_time_us=time_us_from(message.receive_time, "trade.receive_time"),
        price=_mantissa(message.price, "trade.price"),
        quantity=_mantissa(message.quantity, "trade.quantity"),
        side=SIDES.index(message.side),
        vendor_data=dict(message.vendor_data),
    )


def _mantissa(text: str, field: str) -> int:
    """Convert a decimal number to units of 1e-8, exactly."""
    try:
        sign, digits, exponent = Decimal(text).as_tuple()
    except InvalidOperation:
        raise bad_field(field, f"{text!r} is not a decimal number") from None
    if not isinstance(exponent, int) or not -_DIGITS_MAX <= exponent <= _DIGITS_MAX:
        raise bad_field(field, f"{text!r} is not a number that a trade can have")
    shift = exponent + _SCALE
    whole = int("".join(map(str, digits)))
    exact, rest = divmod(whole * int(10 ** max(0, shift)), int(10 ** max(0, -shift)))
    if rest or exact >= 10**_DIGITS_MAX:
        raise bad_field(field, f"{text!r} has more than 8 decimals, or more than 38 digits")
    return -exact if sign else exact


def _decimal(mantissa: int) -> str:
    sign, rest = ("-" if mantissa < 0 else ""), abs(mantissa)
    return f"{sign}{rest // 10**_SCALE}.{rest % 10**_SCALE:0{_SCALE}}"


def _time(time_us: int) -> timestamp_pb2.Timestamp | None:
    """Convert a time; None for one that protobuf cannot name: the fault says it is out of range."""
    return time_to(time_us) if is_nameable(time_us) else None
