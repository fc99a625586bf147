"""One path of acceptance: what is judged, what waits, and what a defect of K2 costs."""

import logging
import traceback
from dataclasses import replace

import numpy as np
import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.errors import Data, Reason, Unavailable
from k2.market.events import DAY_US, RECORD_TIME_MAX_US, Fault
from k2.market.fold import FoldState, Verdict
from k2.tape.acceptance import Acceptance, joined
from k2.tape.avro.trade_codec import Decoder
from k2.tape.consumer import RawBatch
from tests.support.trades import NOW_US
from tests.support.writer_world import BTC, Schemas, message


class Map:
    """A partition map that counts how often it had to be read."""

    def __init__(self, known, later=None):
        self.known, self.later, self.asked = known, later or {}, []

    def refresh_for(self, instruments):
        self.asked.append(set(instruments))
        if set(instruments) <= set(self.known):
            return self.known
        return self.known | self.later


class Failing:
    """A decoder with a defect: it fails on every batch that has one of some values."""

    warm = True

    def __init__(self, *values, error=OverflowError, also_blank=False):
        self.inner, self.values, self.error = Decoder(Schemas()), values, error
        self.also_blank, self.calls = also_blank, 0

    def decode(self, batch):
        self.calls += 1
        blank = self.also_blank and None in batch.values
        if blank or set(self.values) & set(batch.values):
            raise self.error("nobody foresaw this")
        return self.inner.decode(batch)


class Prefix:
    """A decoder that has to look up a schema: it decodes up to there, or waits."""

    warm = True

    def __init__(self, *unknown):
        self.inner, self.unknown = Decoder(Schemas()), unknown

    def decode(self, batch):
        end = next((i for i, v in enumerate(batch.values) if v in self.unknown), len(batch))
        if end == 0:
            raise Unavailable(Reason.REGISTRY_UNAVAILABLE, "away", retry_after_s=0.1)
        return self.inner.decode(batch.between(0, end))


def batch(*values, first=10, appended=None):
    offsets = np.arange(first, first + len(values), dtype=np.int64)
    stamps = None if appended is None else np.array(appended, dtype=np.int64)
    return RawBatch(1, offsets, list(values), first + len(values), append_time=stamps)


def acceptance(decoder=None, placement=None, **given):
    clock = ManualClock()
    made = Acceptance(decoder or Decoder(Schemas()), placement or Map({BTC: 1}), clock, **given)
    made.clock = clock
    return made


def all_of(judge, raw, state=None):
    """Judges a whole batch in as many steps as it takes: names of faults or verdicts."""
    state, names = state or FoldState(), []
    while raw is not None:
        judged = judge.judge(raw, state)
        state, raw = judged.state, judged.rest
        names += [
            Fault(fault).name if fault else Verdict(verdict).name
            for fault, verdict in zip(judged.faults.tolist(), judged.verdicts.tolist(), strict=True)
        ]
    return names


def test_a_batch_is_judged_record_by_record():
    judged = acceptance().judge(batch(message(1), b"bad", message(1), message(2)), FoldState())
    names = [Verdict(one).name for one in judged.verdicts]
    assert names == ["ACCEPTED", "DEAD", "DUPLICATE", "ACCEPTED"]
    assert (judged.state.accepted, judged.state.duplicate, judged.state.dead) == (2, 1, 1)
    assert judged.accepted().trade_id.tolist() == [1, 2]
    assert judged.rest is None


def elsewhere(*values):
    return replace(batch(*values), partition=2)


def test_batches_decoded_together_are_judged_as_ever():
    judge = acceptance(placement=Map({BTC: 1}))
    batches = [batch(message(1), message(1)), elsewhere(message(2))]
    decoded = judge.decode_together(batches)
    assert decoded.keys() == {1, 2}
    for one in batches:
        alone, after = (
            judge.judge(one, FoldState(), decoded=d) for d in (None, decoded[one.partition])
        )
        assert alone.verdicts.tolist() == after.verdicts.tolist()
        assert alone.faults.tolist() == after.faults.tolist()
        assert alone.state.seen.keys() == after.state.seen.keys()


@pytest.mark.parametrize("strange", [b"bad", None, message(2, vendor={"a": "b"})])
def test_what_is_no_plain_trade_is_decoded_by_itself(strange):
    assert acceptance().decode_together([batch(message(1)), elsewhere(strange)]) == {}


@pytest.mark.parametrize("decoder", [Failing(message(2)), Prefix(message(2)), Prefix(message(1))])
def test_what_cannot_be_decoded_now_is_decoded_by_itself(decoder):
    judge = acceptance(decoder)
    assert judge.decode_together([batch(message(1)), elsewhere(message(2))]) == {}


def test_a_record_that_was_set_aside_stays_so_though_it_was_decoded():
    judge = acceptance()
    judge.set_aside(1, [11], OverflowError("a defect elsewhere"))
    batches = [batch(message(1), message(2)), elsewhere(message(3))]
    decoded = judge.decode_together(batches)
    judged = judge.judge(batches[0], FoldState(), decoded=decoded[1])
    assert judged.faults.tolist() == [Fault.NONE, Fault.INTERNAL]


def test_only_symbols_of_good_records_are_asked_for():
    places = Map({BTC: 1})
    judge = acceptance(placement=places)
    judge.judge(batch(message(1), b"bad"), FoldState())
    judge.judge(batch(b"bad"), FoldState())
    assert places.asked == [{BTC}, set()]


def test_what_another_process_may_know_is_undecided():
    raw = batch(message(1), b"\x00\x00\x00\x00\x63xx", b"bad", message(4, "ETHUSDT"))
    assert acceptance().judge(raw, FoldState()).undecided.tolist() == [False, True, False, True]


# --- times --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event_us", "name"),
    [(NOW_US + DAY_US, "ACCEPTED"), (NOW_US + DAY_US + 1, "OUT_OF_RANGE")],
)
def test_an_event_is_at_most_a_day_ahead_of_its_append_time(event_us, name):
    raw = batch(message(1, at=event_us), appended=[NOW_US])
    assert all_of(acceptance(), raw) == [name]


@pytest.mark.parametrize("appended", [None, [RECORD_TIME_MAX_US]])
def test_a_record_that_its_producer_stamped_has_the_hard_maximum_alone(appended):
    near, far = RECORD_TIME_MAX_US - 1001, RECORD_TIME_MAX_US
    assert all_of(acceptance(), batch(message(1, at=near), appended=appended)) == ["ACCEPTED"]
    assert all_of(acceptance(), batch(message(1, at=far), appended=appended)) == ["OUT_OF_RANGE"]


def test_a_clock_of_the_feed_that_is_days_off_makes_no_letters():
    """Receive times are compared with no clock."""
    raw = batch(message(1, at=NOW_US, received=NOW_US - 9 * DAY_US), appended=[NOW_US])
    assert all_of(acceptance(), raw) == ["ACCEPTED"]


# --- what waits ---------------------------------------------------------------------------------


def test_a_record_that_must_be_looked_up_is_judged_in_a_later_step():
    raw = batch(message(1), message(2), b"unknown", message(3))
    judged = acceptance(Prefix(b"unknown")).judge(raw, FoldState())
    assert judged.verdicts.tolist() == [Verdict.ACCEPTED] * 2
    assert (judged.batch.next_offset, judged.rest.offset.tolist()) == (12, [12, 13])


def waiting(judge, *values):
    """Why the last of these records waits, once those before it were judged."""
    with pytest.raises(Unavailable) as caught:
        all_of(judge, batch(*values, first=500))
    return caught.value.reason


def test_an_absent_registry_is_waited_for_briefly_then_its_records_are_judged_unasked():
    judge = acceptance(Prefix(b"unknown"))
    assert waiting(judge, b"unknown", message(1)) is Reason.REGISTRY_UNAVAILABLE
    judge.clock.advance(limits.UNASKED_AFTER_S)
    judged = judge.judge(batch(b"unknown", message(1)), FoldState())
    assert judged.faults.tolist() == [Fault.UNKNOWN_SCHEMA]
    assert judged.undecided.all()
    assert all_of(judge, judged.rest) == ["ACCEPTED"]


def test_only_so_many_records_of_an_outage_are_judged_unasked():
    judge = acceptance(Prefix(b"unknown"))
    assert waiting(judge, b"unknown") is Reason.REGISTRY_UNAVAILABLE
    judge.clock.advance(limits.UNASKED_AFTER_S)
    for _ in range(limits.UNASKED_MAX):
        judge.judge(batch(b"unknown"), FoldState())
    assert waiting(judge, b"unknown") is Reason.REGISTRY_UNAVAILABLE
    judge.clock.advance(limits.UNASKED_OVER_S + 1)  # another outage, which begins with waiting
    assert waiting(judge, b"unknown") is Reason.REGISTRY_UNAVAILABLE


def test_a_process_that_never_read_a_trade_judges_nothing_unasked():
    decoder = Prefix(b"unknown")
    decoder.warm = False
    judge = acceptance(decoder)
    for _ in range(3):
        assert waiting(judge, b"unknown") is Reason.REGISTRY_UNAVAILABLE
        judge.clock.advance(limits.UNASKED_AFTER_S)


def test_a_tape_that_cannot_say_where_a_symbol_belongs_is_waited_for():
    class Away:
        def refresh_for(self, instruments):
            raise Unavailable(Reason.TAPE_UNAVAILABLE, "away")

    judge = acceptance(placement=Away())
    judge.clock.advance(limits.UNASKED_AFTER_S)
    assert waiting(judge, message(1)) is Reason.TAPE_UNAVAILABLE


# --- defects ------------------------------------------------------------------------------------


def test_a_record_that_k2_fails_on_is_a_fault_by_itself(caplog):
    raw = batch(message(1), message(2), b"\x00bad!", message(3), message(4))
    judge = acceptance(Failing(b"\x00bad!"))
    with caplog.at_level(logging.ERROR):
        assert all_of(judge, raw) == ["ACCEPTED", "ACCEPTED", "INTERNAL", "ACCEPTED", "ACCEPTED"]
    assert "K2 fails on records of the tape" in caplog.text


@pytest.mark.parametrize("where", range(0, 37, 4))
def test_the_verdicts_of_the_neighbours_are_those_of_a_k2_without_the_defect(where):
    values = [message(1 + at // 2) for at in range(37)]
    values[where] = b"\x00bad!"
    expected = all_of(acceptance(), batch(*values))
    expected[where] = "INTERNAL"
    assert all_of(acceptance(Failing(b"\x00bad!")), batch(*values)) == expected


def test_a_record_set_aside_stays_so_when_its_batch_is_judged_again():
    raw = batch(message(1), b"\x00bad!", message(2))
    judge = acceptance(Failing(b"\x00bad!"))
    first = all_of(judge, raw)
    calls = judge._decoder.calls
    assert all_of(judge, raw) == first
    assert judge._decoder.calls == calls + 1, "its place is remembered"


def test_a_partition_with_many_of_them_stands_still_for_an_hour_and_no_other_does():
    bad = [b"\x00bad%d!" % at for at in range(limits.INTERNAL_FAULTS_MAX + 1)]
    judge = acceptance(Failing(*bad))
    assert set(all_of(judge, batch(*bad[:-1]))) == {"INTERNAL"}
    assert waiting(judge, *[message(1)] * 20, bad[-1]) is Reason.PARTITION_STOPPED
    assert waiting(judge, message(1)) is Reason.PARTITION_STOPPED, "it waits as a whole"
    other = replace(batch(message(1)), partition=0)
    assert judge.judge(other, FoldState()).faults.tolist() == [Fault.WRONG_PARTITION]
    judge.clock.advance(limits.INTERNAL_FAULTS_S)
    assert all_of(judge, batch(message(1), bad[-1], first=90)) == ["ACCEPTED", "INTERNAL"]


def test_a_partition_that_stands_still_keeps_nothing_of_the_calls_it_refused():
    bad = [b"\x00bad%d!" % at for at in range(limits.INTERNAL_FAULTS_MAX + 1)]
    judge, depths = acceptance(Failing(*bad)), []
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            all_of(judge, batch(*bad))
        depths.append(len(list(traceback.walk_tb(caught.value.__traceback__))))
    assert depths[2] == depths[1]


@pytest.mark.parametrize("error", [MemoryError, OSError])
def test_an_error_of_the_machine_is_no_records_fault(error):
    with pytest.raises(error):
        acceptance(Failing(b"x", error=error)).judge(batch(b"x"), FoldState())


def test_what_fails_without_the_records_bytes_too_ends_the_process():
    judge = acceptance(Failing(b"x", also_blank=True))
    with pytest.raises(OverflowError):
        judge.judge(batch(b"x"), FoldState())


def test_a_doubtful_schema_id_is_no_records_fault():
    class Doubtful:
        warm = True

        def decode(self, batch):
            raise Data(Reason.SCHEMA_CONFLICT, "another schema under the same id")

    with pytest.raises(Data):
        acceptance(Doubtful()).judge(batch(b"x"), FoldState())


# --- batches ------------------------------------------------------------------------------------


def test_a_batch_is_cut_and_joined():
    raw = batch(b"a", b"b", b"c", appended=[1, 2, 3])
    assert raw.from_offset(5) is raw
    rest = raw.from_offset(12)
    assert (rest.offset.tolist(), rest.values, rest.next_offset) == ([12], [b"c"], 13)
    assert rest.append_time.tolist() == [3]
    first = raw.between(0, 2)
    assert (first.next_offset, first.append_time.tolist()) == (12, [1, 2])
    again = joined(first, rest)
    assert (again.values, again.next_offset) == (raw.values, 13)
    assert again.append_time.tolist() == [1, 2, 3]
    assert joined(batch(b"a"), rest).append_time is None
