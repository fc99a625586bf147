"""Writes exact decimal arithmetic as SQL: sums that fail where they do not fit, rounded quotients.

DuckDB adds and multiplies DECIMAL(38) exactly, and raises an error where a result does not fit. It
divides as DOUBLE, so quotients are made of integers.
"""

from __future__ import annotations

ID_MIN, ID_MAX = -(2**63), 2**63 - 1
QUOTE = "price::DECIMAL(38, 8) * quantity::DECIMAL(38, 8)"  # exact, of scale 16


def order_key(time_us: str, trade_id: int | str) -> str:
    """Write an integer that orders the trades of an instrument canonically, by time and id."""
    return f"(({time_us})::HUGEINT * 18446744073709551616 + ({trade_id}))"


ORDER_KEY = order_key("epoch_us(event_time)", "trade_id")


def raw(decimal: str) -> str:
    """Write the digits of a decimal, without its point, as an integer."""
    return f"replace({decimal}::VARCHAR, '.', '')::HUGEINT"


def rounded_price(dividend: str, divisor: str) -> str:
    """Write the quotient of two integers as a price, rounded half to even; null where it has none.

    Args:
        dividend: column of an integer.
        divisor: column of an integer from 0 on; the quotient counts units of 1e-8.
    """
    whole, rest = f"(abs({dividend}) // {divisor})", f"(abs({dividend}) % {divisor})"
    up = (
        f"CASE WHEN {rest} > {divisor} - {rest} OR ({rest} = {divisor} - {rest}"
        f" AND {whole} % 2 = 1) THEN 1 ELSE 0 END"
    )
    units = f"(sign({dividend})::HUGEINT * ({whole} + {up}))::DECIMAL(18, 0)"
    price = f"({units} * 0.00000001::DECIMAL(8, 8))::DECIMAL(18, 8)"
    return f"CASE WHEN {divisor} > 0 THEN {price} END"
