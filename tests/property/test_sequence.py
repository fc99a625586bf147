"""The id check equals its definition, a set of everything seen, id by id."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from k2.market.sequence import Finding, Sequence

NEAR = st.integers(min_value=0, max_value=60)


class Definition:
    """The check by remembering every id; no bound is met with ids this near."""

    def __init__(self, acknowledged):
        self.seen = set()
        self.floor = None if acknowledged is None else acknowledged + 1
        self.last = acknowledged

    def observe(self, trade_id):
        finding = self.judge(trade_id)
        self.seen.add(trade_id)
        self.floor = trade_id if self.floor is None else self.floor
        self.last = trade_id if self.last is None else max(self.last, trade_id)
        return finding

    def judge(self, trade_id):
        if self.last is None:
            return Finding.FIRST
        if trade_id > self.last:
            return Finding.NEXT if trade_id == self.last + 1 else Finding.GAP
        if trade_id >= self.floor and trade_id in self.seen:
            return Finding.DUPLICATE
        return Finding.REORDERED

    def missing(self):
        known = range(self.floor, self.last + 1) if self.floor is not None else ()
        return {trade_id for trade_id in known if trade_id not in self.seen}


@given(st.lists(NEAR, max_size=80), st.none() | NEAR)
def test_findings_and_gaps_equal_the_definition(ids, acknowledged):
    sequence, definition = Sequence(acknowledged), Definition(acknowledged)
    findings = []
    for trade_id in ids:
        findings.append(sequence.observe(trade_id))
        assert findings[-1] is definition.observe(trade_id)
        missing = {lost for first, last in sequence.gaps for lost in range(first, last + 1)}
        assert missing == definition.missing()
        assert sequence.last == definition.last
    counts = sequence.counts
    assert counts.seen == len(ids) - findings.count(Finding.DUPLICATE)
    assert counts.duplicates == findings.count(Finding.DUPLICATE)
    assert counts.reordered == findings.count(Finding.REORDERED)
    assert counts.gaps == findings.count(Finding.GAP)
    assert counts.resets == 0


@given(st.lists(st.integers(min_value=0, max_value=2**63 - 1), max_size=50))
def test_a_duplicate_was_certainly_seen(ids):
    sequence = Sequence()
    seen = set()
    for trade_id in ids + ids:
        if sequence.observe(trade_id) is Finding.DUPLICATE:
            assert trade_id in seen
        seen.add(trade_id)
        gaps = sequence.gaps
        assert all(first <= last for first, last in gaps)
        assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(gaps))
