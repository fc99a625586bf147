"""Says where bars begin: their length, the time zone, and the days of that zone.

Bars of a part of a day are counted from each midnight of the zone, so every day begins with a bar;
where a day of 23 or 25 hours is no multiple of their length, its last bar is shorter. Days, weeks
(from Monday on) and months follow the zone's calendar. All in integers: microseconds since 1970.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from k2.market.offsets import TimeRange
from k2.query.shapes.shape import bad_option

DAY_US = 86_400_000_000
STEP_MIN_US = 100_000
DAYS_MAX = 75_000  # of one answer, in a zone: two centuries
_UNITS_US = {"ms": 1000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_STEP = re.compile(r"([1-9][0-9]{0,8})(ms|s|m|h)", re.ASCII)
_CALENDAR_DAYS = {"1d": 1, "1w": 7, "1mo": 31}  # most days of a bar
_FIRST, _LAST = date(2, 1, 1), date(9998, 1, 1)  # days whose neighbours have names too
_SHOWN = 40  # characters of an option in a message


@dataclass(frozen=True)
class BarGrid:
    """Where bars begin.

    Attributes:
        every: the length of a bar: n of `ms s m h` that divides a day, or `1d`, `1w`, `1mo`.
        zone: a time zone's name.
    """

    every: str = "1m"
    zone: str = "UTC"

    def check(self) -> None:
        """Refuse what is no length of a bar, or no zone.

        Raises:
            Invalid: BAD_REQUEST.
        """
        step_us = self.step_us
        if not (step_us or self.every in _CALENDAR_DAYS):
            raise bad_option(
                f"every {self.every[:_SHOWN]!r} is no length of a bar: give n of ms, s, m or h"
                " that divides a day, from 100ms on, or 1d, 1w, 1mo"
            )
        zone_of(self.zone)

    @property
    def step_us(self) -> int | None:
        """The length of a bar that is a part of a day; None where the calendar decides."""
        match = _STEP.fullmatch(self.every)
        step_us = int(match[1]) * _UNITS_US[match[2]] if match else 0
        divides = STEP_MIN_US <= step_us <= DAY_US and DAY_US % step_us == 0
        return step_us if divides else None

    @property
    def length_max_us(self) -> int:
        """No bar is longer, those of the longest days included."""
        return self.step_us or (_CALENDAR_DAYS[self.every] + 1) * DAY_US

    def floor(self, time_us: int) -> int:
        """Return where the bar of a time begins; a time beyond the calendar is its own bar."""
        step_us = self.step_us
        if step_us and self.zone == "UTC":
            return time_us // step_us * step_us
        edge_us = self.edges(time_us, time_us)[0]
        if edge_us > time_us:
            return time_us
        return edge_us + (time_us - edge_us) // step_us * step_us if step_us else edge_us

    def aligned(self, times: TimeRange) -> TimeRange:
        """Return the range from the start of a bar on."""
        if times.start_us is None:
            return times
        return TimeRange(self.floor(times.start_us), times.end_us)

    def edges(self, low_us: int, high_us: int) -> list[int]:
        """Return where days, or bars of the calendar, begin: those of two times, and the next one.

        Raises:
            Invalid: BAD_REQUEST when the times lie too far apart.
        """
        zone = zone_of(self.zone)
        first, last = _day(low_us, zone), _day(high_us, zone)
        if (last - first).days > DAYS_MAX:
            raise bad_option(f"bars from {first} to {last} are too many: give a shorter range")
        if self.every == "1mo":
            months = range(first.year * 12 + first.month - 1, last.year * 12 + last.month + 1)
            return [_midnight_us(date(month // 12, month % 12 + 1, 1), zone) for month in months]
        step = _CALENDAR_DAYS.get(self.every, 1)
        first -= timedelta(days=first.weekday() if step > 1 else 0)
        days = range(0, (last - first).days + step + 1, step)
        return [_midnight_us(first + timedelta(days=day), zone) for day in days]

    def unit_us(self, edges: list[int]) -> int:
        """Return the longest step, counted from 1970 on, that crosses the start of no bar."""
        return math.gcd(self.step_us or 0, *edges)


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its name.

    Raises:
        Invalid: BAD_REQUEST when there is none.
    """
    try:
        return _zone(name)
    except (KeyError, ValueError, OSError) as error:  # by what is wrong with the name
        raise bad_option(f"there is no time zone {name[:_SHOWN]!r}") from error


@functools.lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _day(time_us: int, zone: ZoneInfo) -> date:
    """Return the day of a time in a zone, at least and at most one whose neighbours have names."""
    days = time_us // DAY_US
    if not _FIRST.toordinal() < days + _EPOCH < _LAST.toordinal():
        return _FIRST if days < 0 else _LAST
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).astimezone(zone).date()


def _midnight_us(day: date, zone: ZoneInfo) -> int:
    """Return when a day begins: the first of two midnights; the change of clocks for none."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1_000_000


_EPOCH = date(1970, 1, 1).toordinal()
