"""Samples and families of a metrics endpoint, and the freshness of a process."""

from k2cli.operate import scrape

TEXT = """\
# TYPE k2_a gauge
k2_a{x="1"} 2
k2_a{x="2"} 3.5
k2_a_more 7.0
# TYPE other counter
other 1e+06
"""


def test_samples_are_read_by_their_labels():
    assert scrape.samples(TEXT, "k2_a") == {'{x="1"}': 2.0, '{x="2"}': 3.5}
    assert scrape.samples(TEXT, "other") == {"": 1e6}
    assert scrape.samples(TEXT, "missing") == {}


def test_families_are_those_of_k2():
    assert scrape.families(TEXT) == {"k2_a"}


def test_freshness_is_of_all_partitions_together():
    text = """\
# TYPE k2_freshness_seconds histogram
k2_freshness_seconds_bucket{partition="0",le="+Inf"} 3.0
k2_freshness_seconds_count{partition="0"} 3.0
k2_freshness_seconds_sum{partition="0"} 1.5
k2_freshness_seconds_count{partition="1"} 1.0
k2_freshness_seconds_sum{partition="1"} 0.5
"""
    assert scrape.freshness(text) == (2.0, 4.0)
    assert scrape.freshness(TEXT) is None
