"""What a process counts.

Counters are fields of dataclasses, declared beside the code that moves them. A field's type says
what it is: `Counter`, `Gauge`, or anything else that JSON can hold, for people to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, TypeAlias, get_type_hints


class CounterKind(StrEnum):
    """What a field of a dataclass of counters is."""

    COUNTER = "counter"  # grows, from 0 at the start of the process
    GAUGE = "gauge"  # rises and falls
    INFO = "info"  # no number, or a mapping of counters by what they are of


Counter: TypeAlias = Annotated[int, CounterKind.COUNTER]
Gauge: TypeAlias = Annotated[float, CounterKind.GAUGE]


class DataclassInstance(Protocol):
    """Any instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class CounterReading(NamedTuple):
    """One counter at one moment."""

    name: str
    kind: CounterKind
    value: object


class Counters:
    """All counters of a process, in the groups that its components declare."""

    def __init__(self) -> None:
        self._groups: list[tuple[str, tuple[str, ...], Callable[[], DataclassInstance]]] = []

    def add(
        self, read: Callable[[], DataclassInstance], prefix: str = "", labels: tuple[str, ...] = ()
    ) -> None:
        """Add a group.

        Args:
            read: returns its values now; quick.
            prefix: leads the names of its fields.
            labels: values of the first labels of its metrics, where several groups share them.
        """
        self._groups.append((prefix, labels, read))

    def groups(self) -> Iterator[tuple[tuple[str, ...], DataclassInstance]]:
        """Every group now, with its labels."""
        for _, labels, read in self._groups:
            yield labels, read()

    def read(self) -> Iterator[CounterReading]:
        """Every counter now; one that is None is left out."""
        for prefix, _, read in self._groups:
            group = read()
            kinds = _kinds(type(group))
            for field in fields(group):
                value = getattr(group, field.name)
                if value is not None:
                    yield CounterReading(
                        prefix + field.name, kinds.get(field.name, CounterKind.INFO), value
                    )

    def values(self) -> dict[str, Any]:
        """Every counter now by name, as JSON can hold it."""
        return {reading.name: _plain(reading.value) for reading in self.read()}


@cache
def _kinds(group: type) -> Mapping[str, CounterKind]:
    hints = get_type_hints(group, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items() if _is_counter(hint)}


def _is_counter(hint: object) -> bool:
    return any(isinstance(kind, CounterKind) for kind in getattr(hint, "__metadata__", ()))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value
