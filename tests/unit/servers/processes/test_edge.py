"""The edge process's own small part; the whole is in tests/integration/servers."""

import ipaddress

from k2.clock import ManualClock
from k2.degrade.signals import SOFT_AT_MOST, Signal, pressures
from k2.settings import AccessSettings, ControlSettings, EdgeSettings, Settings
from servers.processes.edge import SCALES, parts_of, signals


def test_it_calls_control_where_the_settings_say():
    settings = Settings(control=ControlSettings(listen="127.0.0.1:7"))
    parts = parts_of(settings, ManualClock())
    assert parts.connections.client().address == "127.0.0.1:7"
    named = settings.model_copy(update={"edge": EdgeSettings(control_address="127.0.0.1:8")})
    assert parts_of(named, ManualClock()).state.client().address == "127.0.0.1:8"


def test_trusted_networks_are_those_of_the_settings():
    settings = Settings(access=AccessSettings(trusted_networks="172.18.0.0/16"))
    trusted = parts_of(settings, ManualClock()).trusted
    assert trusted == (ipaddress.ip_network("172.18.0.0/16"),)


def test_what_waits_for_a_thread_presses_no_more_than_soft():
    found = signals(parts_of(Settings(), ManualClock()))
    assert found == {Signal.QUERIES_QUEUED: 0.0, Signal.OLDEST_WORK_S: 0.0}
    full = dict.fromkeys(found, 1e9)
    assert set(pressures(full, SCALES).values()) == {SOFT_AT_MOST}
