import pytest

from k2.degrade.level import Level
from k2.degrade.platform import Levels
from k2.feed.connection.intake import Intake
from k2.market.instrument import Instrument, Priorities

BTC, SOL, SHIB = (Instrument("BINANCE", symbol) for symbol in ("BTCUSDT", "SOLUSDT", "SHIBUSDT"))


@pytest.fixture
def intake():
    return Intake((SHIB, BTC, SOL), Priorities())


def test_critical_symbols_have_connections_of_their_own(intake):
    assert intake.groups() == ((BTC,), (SHIB, SOL))
    assert Intake((SHIB,), Priorities()).groups() == ((SHIB,),)
    raised = Priorities({SHIB.key: "critical", BTC.key: "low"})
    assert Intake((SHIB, BTC), raised).groups() == ((SHIB,), (BTC,))


@pytest.mark.parametrize(
    ("level", "taken", "filled"),
    [
        (Level.NORMAL, {BTC, SOL, SHIB}, {BTC, SOL, SHIB}),
        (Level.SOFT, {BTC, SOL, SHIB}, {BTC, SOL, SHIB}),
        (Level.GRACEFUL, {BTC, SOL, SHIB}, {BTC, SOL}),
        (Level.AGGRESSIVE, {BTC}, {BTC}),
        (Level.CIRCUIT_BREAK, set(), set()),
    ],
)
def test_each_level_takes_and_fills_what_its_policy_says(intake, level, taken, filled):
    intake.obey(Levels(platform=level))
    groups = [group for group in intake.groups() if intake.takes(group)]
    assert {each for group in groups for each in group} == taken
    assert {each for each in (BTC, SOL, SHIB) if intake.fills(each)} == filled
    counters = intake.counters()
    assert counters.backfill_paused == 3 - len(filled)
    assert counters.intake_open["critical"] == (BTC in taken)
    assert counters.intake_open["low"] == (SHIB in taken)


def test_shadow_shuts_nothing(intake):
    intake.obey(Levels(platform=Level.CIRCUIT_BREAK, shadow=True))
    assert all(intake.takes(group) for group in intake.groups())


def test_it_opens_again_with_the_level(intake):
    intake.obey(Levels(override=Level.CIRCUIT_BREAK))
    assert not intake.takes((BTC,))
    intake.obey(Levels())
    assert intake.takes((BTC,))
    assert intake.fills(SHIB)


def test_a_recording_comes_over_one_connection():
    intake = Intake([BTC, SOL, SHIB], Priorities(), together=True)
    assert intake.groups() == ((BTC, SOL, SHIB),)
