from k2.feed.gaps.lately import Lately
from k2.market.instrument import Instrument

BTC, ETH = Instrument("BINANCE", "BTCUSDT"), Instrument("BINANCE", "ETHUSDT")


def test_ids_are_held_while_they_were_heard_of_after_a_time():
    lately = Lately()
    lately.hear(BTC, 5, 9, at_s=10)
    lately.hear(BTC, 20, 20, at_s=12)
    for first, last in ((9, 9), (1, 5), (6, 7), (1, 30)):
        assert lately.holds(BTC, first, last, since_s=9.9)
    assert not lately.holds(BTC, 10, 19, since_s=0)
    assert not lately.holds(BTC, 5, 9, since_s=10)
    assert lately.holds(BTC, 20, 20, since_s=10)
    assert not lately.holds(ETH, 5, 9, since_s=0)


def test_what_is_heard_of_again_is_young_again():
    lately = Lately()
    lately.hear(BTC, 5, 9, at_s=10)
    lately.hear(BTC, 5, 9, at_s=20)
    assert lately.holds(BTC, 7, 7, since_s=15)


def test_what_was_forgotten_counts_for_all_ids():
    lately = Lately(runs_max=2)
    for number in range(3):
        lately.hear(BTC, number, number, at_s=number)
    assert not lately.holds(ETH, 7, 7, since_s=0)
    assert lately.holds(ETH, 7, 7, since_s=-1)
