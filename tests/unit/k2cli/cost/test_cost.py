"""The bill is a pure function; its tables are those of the page."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from k2cli.cost.cost_model import (
    HOURS,
    Deployment,
    Measured,
    Price,
    Prices,
    at_scale,
    bill,
    crossings,
    per_million_expression,
    read_prices,
    sensitivity,
)
from k2cli.cost.cost_report import tables

PAGE = Path(__file__).parents[4] / "docs/cost-model.md"


def price(dollars):
    return Price(dollars, "unit", "thing", "https://example.org")


FREE = Prices("2025-11", "here", *(price(0.0) for _ in range(6)))
ONE_CORE = Measured(100.0, 100.0, 100.0, 100.0, lake_bytes=10.0, tape_bytes=50.0)
SIMPLE = Deployment(100.0, utilisation=1.0, copies=1, zones=1, vcpu_min=1.0)


def test_cores_are_rows_over_what_a_core_does():
    found = bill(SIMPLE, ONE_CORE, replace(FREE, vcpu_hour=price(1.0)))
    assert found.vcpus == 4  # feed, broker, lake and tail: each a core
    assert found.total == found.cores == 4 * HOURS
    assert found.messages == 100 * HOURS * 3600
    half_used = bill(replace(SIMPLE, utilisation=0.5), ONE_CORE, FREE)
    assert half_used.vcpus == 8


def test_the_smallest_machine_is_paid_for_a_small_rate():
    found = bill(replace(SIMPLE, messages_per_s=0.1, vcpu_min=2.0), ONE_CORE, FREE)
    assert found.vcpus == 2


def test_storage_is_bytes_kept():
    prices = replace(FREE, object_gb_month=price(1.0), disk_gb_month=price(1.0))
    found = bill(replace(SIMPLE, lake_days=10, tape_hours=24, copies=3), ONE_CORE, prices)
    assert found.lake == pytest.approx(100 * 10 * 10 * 86_400 / 1e9)
    assert found.tape == pytest.approx(100 * 50 * 86_400 * 3 / 1e9)


def test_commits_are_requests():
    found = bill(replace(SIMPLE, commit_interval_s=10), ONE_CORE, replace(FREE, put_1000=price(1)))
    commits = HOURS * 3600 / 10
    workers = 1
    assert found.requests == pytest.approx(commits * workers * 4 * 1.1 / 1000)


def test_messages_cross_zones_to_their_leader_and_to_the_other_copies():
    assert crossings(replace(SIMPLE, zones=1, copies=3)) == 0
    assert crossings(replace(SIMPLE, zones=3, copies=3)) == pytest.approx(2 / 3 + 2)


def test_a_million_messages_cost_the_bill_over_the_messages():
    found = bill(SIMPLE, ONE_CORE, read_prices())
    assert found.per_million == pytest.approx(found.total / found.messages * 1e6)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(SIMPLE, messages_per_s=0),
        replace(SIMPLE, utilisation=0),
        replace(SIMPLE, utilisation=1.1),
        replace(SIMPLE, commit_interval_s=-1),
    ],
)
def test_what_makes_no_bill_is_refused(wrong):
    with pytest.raises(ValueError, match="above"):
        bill(wrong, ONE_CORE, FREE)


def test_a_measured_figure_of_zero_is_refused():
    with pytest.raises(ValueError, match="feed_rows"):
        bill(SIMPLE, replace(ONE_CORE, feed_rows=0), FREE)


def test_each_assumption_moves_the_bill_the_right_way():
    found = {
        name: ratio for name, _, ratio in sensitivity(at_scale(1e6), Measured(), read_prices())
    }
    assert found["as assumed"] == 1
    assert found["one zone instead of three"] < 1
    assert found["rows kept for a year"] > 1 > found["rows kept for 30 days"]
    assert found["cores used to 25 %"] > 1 > found["cores used to 80 %"]


@pytest.mark.parametrize(("rate", "size"), [(1.0, 7.0), (138.0, 7.7), (900.0, 16.0)])
def test_the_panel_computes_the_same(rate, size):
    expression = per_million_expression(str(rate), str(size), read_prices())
    measured = replace(Measured(), lake_bytes=size)
    expected = bill(at_scale(rate), measured, read_prices()).per_million
    assert arithmetic(expression) == pytest.approx(expected, rel=1e-3)


def arithmetic(expression):
    """Evaluate numbers, + * / and parentheses."""
    assert re.fullmatch(r"[\d.+*/() ]+", expression)
    return eval(expression, {"__builtins__": {}})


def test_every_price_has_a_public_source_and_a_date():
    prices = read_prices()
    assert re.fullmatch(r"\d{4}-\d{2}", prices.checked)
    for one in vars(prices).values():
        if isinstance(one, Price):
            assert one.price > 0
            assert one.source.startswith("https://")


def test_the_page_shows_what_the_function_gives():
    assert tables(Measured(), read_prices()) in PAGE.read_text()


def test_the_command(k2):
    found = k2("cost", "--messages", "138", "--json").json
    assert found["bills"][0]["per_million"] == pytest.approx(0.187, abs=0.001)
    assert "$ per million messages" in k2("cost").stdout
    assert k2("cost", "--messages", "0").code == 2
