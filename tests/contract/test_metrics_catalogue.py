"""The catalogue of metrics is that of the code, and each metric is well declared."""

import re

import pytest

from scripts import metrics_catalogue

DECLARED = metrics_catalogue.declarations()
NAME = re.compile(r"k2(_[a-z0-9]+)+")
BOUNDED = {  # by what
    "class": "the classes of requests",
    "code": "the codes of gRPC, those of HTTP",
    "completeness": "its enumeration",
    "component": "broker and registry",
    "fault": "its enumeration",
    "kind": "the frames that a venue sends beside trades",
    "level": "those of logging",
    "method": "the methods of k2.v1: others are not served; those of HTTP",
    "process": "the processes of the stack",
    "reason": "its enumeration",
    "route": "the paths of the HTTP API as templates, and other",
    "scope": "process and platform",
    "service": "the services of k2.v1",
    "shape": "the kinds of query",
    "side": "lake, tail, both",
    "signal": "its enumeration",
    "state": "its enumeration",
    "symbol": "the symbols of the settings",
    "table": "the tables of the lake",
    "tier": "the tiers",
    "to": "the levels",
}


def test_the_catalogue_is_as_the_code_declares():
    fresh = metrics_catalogue.catalogue(DECLARED)
    assert metrics_catalogue.FILE.read_text() == fresh, (
        "run python -m scripts.metrics_catalogue and review the difference"
    )


def test_there_are_as_many_as_an_operator_was_promised():
    assert len(DECLARED) >= 83


@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED.keys())
def test_a_metric_is_well_declared(declared):
    assert NAME.fullmatch(declared.name)
    assert (declared.kind == "counter") == declared.name.endswith("_total")
    assert not re.search(r"_(bucket|sum|count|created|info)$", declared.name)
    assert not re.search(
        r"_(ms|us|ns|milliseconds|microseconds|kib|mib|percent)(_|$)", declared.name
    )
    if declared.kind == "histogram":
        assert declared.name.endswith("_seconds")
    assert declared.help.endswith(".")
    assert declared.help[0].isupper() or declared.help[0].isdigit()
    assert set(declared.labels) <= BOUNDED.keys(), "a label needs a bound"
    assert len(set(declared.labels)) == len(declared.labels)
    assert declared.module.startswith(("k2.", "servers."))


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("k2_lake_bytes_total", "bytes"),
        ("k2_freshness_seconds", "seconds"),
        ("k2_feed_trades_per_second", "trades/second"),
        ("k2_lake_bytes_per_trade", "bytes/trade"),
        ("k2_degradation_level", ""),
    ],
)
def test_the_unit_is_in_the_name(name, unit):
    assert metrics_catalogue.unit_of(name) == unit
