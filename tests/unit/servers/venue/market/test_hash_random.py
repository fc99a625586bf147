import numpy as np

from servers.venue.market import hash_random


def test_a_number_depends_on_its_key_and_index_alone():
    key = hash_random.key_of(7, "BTCUSDT", "size")
    whole = hash_random.bits(key, np.arange(1000, dtype=np.int64))
    for index in (0, 1, 17, 999):
        assert hash_random.bits(key, np.array([index], np.int64))[0] == whole[index]


def test_the_numbers_are_these_for_ever():
    key = hash_random.key_of(7, "BTCUSDT", "size")
    assert key == 2819807981377129593
    assert hash_random.bits(key, np.arange(3, dtype=np.int64)).tolist() == [
        16658040624605066253,
        5469307947288961672,
        2592224242213023609,
    ]


def test_keys_differ_by_seed_and_by_name():
    keys = {
        hash_random.key_of(seed, name, purpose)
        for seed in (1, 2)
        for name in ("A", "B", "A/B")
        for purpose in ("x", "y")
    }
    assert len(keys) == 12


def test_bits_are_even():
    bits = hash_random.bits(3, np.arange(100_000, dtype=np.int64))
    ones = np.unpackbits(bits.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 0.002
    assert len(np.unique(bits)) == len(bits)


def test_fractions_are_even_in_zero_to_one():
    fractions = hash_random.fractions(hash_random.bits(3, np.arange(100_000, dtype=np.int64)), 16)
    assert fractions.min() > 0
    assert fractions.max() <= 1
    assert abs(fractions.mean() - 0.5) < 0.005
    assert abs(fractions.var() - 1 / 12) < 0.002
