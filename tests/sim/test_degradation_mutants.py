"""What sheds with one thing wrong is found out: pauses, positions behind them, and the level."""

from dataclasses import replace

import pytest

from k2.degrade.level import level_of, step
from k2.lake.ingest.trade_writer import LakeWriter
from tests.sim.hunt import SHARP, is_found_out, name_of
from tests.sim.parts import Parts


class ResumesForAnyReason(LakeWriter):
    """Reads a partition again as soon as one of its reasons is gone."""

    def __init__(self, **given):
        super().__init__(**given)
        pauses, reader = self._reading.pauses, self._reading.reader
        resume = pauses.resume

        def resume_all(reason, partitions):
            freed = [each for each in partitions if reason in pauses.of(each)]
            resume(reason, freed)
            reader.resume(freed)

        pauses.resume = resume_all


class GoesOnAtTheEnd(LakeWriter):
    """Moves over what came while a level had a partition paused."""

    def __init__(self, **given):
        super().__init__(**given)
        reader, order, tape = self._reading.reader, self._order, self._tape
        resume = reader.resume

        def resume_at_the_end(partitions):
            back = [each for each in partitions if order._courses[each].resumed_s is not None]
            ends = tape.ends() if back else ()
            reader.seek({each: ends[each] for each in back})
            resume(partitions)

        reader.resume = resume_at_the_end


class PausesNothing(LakeWriter):
    """Knows the level, and reads on."""

    def __init__(self, **given):
        super().__init__(**given)
        self._order._is_shed = lambda partition: False


def falls_at_once(state, pressure, now_s, tuning):
    """Falls to what the pressure means, past the levels between."""
    after = step(state, pressure, now_s, tuning)
    return replace(after, level=level_of(pressure)) if after.level < state.level else after


def falls_without_dwell(state, pressure, now_s, tuning):
    """Falls as soon as the pressure is gone."""
    return step(state, pressure, now_s, replace(tuning, dwell_s=0.01))


pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PRESSED = SHARP | {
    "symbols": 5, "writers": 1, "chances": {}, "writer_rate": 1.5,
    "every_s": {"pressure": 3, "override": 8},
}  # fmt: skip
# Partitions wait for schemas, too: then there are two reasons, one of which ends first.
TWICE = {
    "seconds": 12, "chances": {"garbage.schema": 0.1, "registry.away": 0.3},
    "every_s": {"pressure": 2, "override": 6},
}  # fmt: skip
MUTANTS = [
    (Parts(pump=ResumesForAnyReason), TWICE),
    (Parts(pump=GoesOnAtTheEnd), {}),
    (Parts(pump=PausesNothing), {}),
    (Parts(step=falls_at_once), {}),
    (Parts(step=falls_without_dwell), {}),
]


@pytest.mark.parametrize(("mutant", "fields"), MUTANTS, ids=name_of)
def test_a_mutant_of_degradation_is_found_out(runs, mutant, fields):
    is_found_out(runs, mutant, **PRESSED | fields)
