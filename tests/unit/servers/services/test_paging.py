"""Pages: every item once, in order, whatever comes or goes between two pages."""

import pytest

from k2 import limits
from k2.errors import Invalid, Reason
from servers.services.paging import page, page_of_newest


def walk(items, size, change=lambda items: None):
    found, token = [], ""
    while True:
        part, token = page(items, lambda item: item, size, token)
        found += part
        if not token:
            return found
        change(items)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_every_item_once_in_order(size):
    assert walk([3, 1, 2, 7, 5], size) == [1, 2, 3, 5, 7]
    assert walk(["b", "a"], size) == ["a", "b"]
    assert walk([], size) == []


def test_items_that_come_and_go_neither_repeat_nor_hide_others():
    items = [1, 2, 3, 4, 5]
    assert walk(items, 2, lambda items: items.remove(1) if 1 in items else None) == [1, 2, 3, 4, 5]


def test_the_size_has_a_default_and_a_maximum():
    many = list(range(limits.PAGE_SIZE_MAX + 5))
    assert len(page(many, lambda item: item, 0, "")[0]) == limits.PAGE_SIZE_DEFAULT
    assert len(page(many, lambda item: item, 10**9, "")[0]) == limits.PAGE_SIZE_MAX


def test_a_negative_size_is_refused():
    with pytest.raises(Invalid) as caught:
        page([1], lambda item: item, -1, "")
    assert caught.value.reason is Reason.BAD_REQUEST


@pytest.mark.parametrize("token", ["x", "eyJ9", "e30=", "W10=", "eyJhZnRlciI6ICJhIn0=", "é"])
def test_a_token_that_no_page_gave_is_refused(token):
    with pytest.raises(Invalid) as caught:
        page([1, 2], lambda item: item, 1, token)
    assert caught.value.reason is Reason.BAD_PAGE_TOKEN


def test_what_is_read_newest_first_is_read_no_further_than_the_page():
    taken = []

    def newest(below):
        for item in range(9, -1, -1):
            if below is None or item < below:
                taken.append(item)
                yield item

    first, token = page_of_newest(newest, lambda item: item, 4, "")
    assert (first, taken) == ([9, 8, 7, 6], [9, 8, 7, 6, 5])
    second, token = page_of_newest(newest, lambda item: item, 4, token)
    last, end = page_of_newest(newest, lambda item: item, 4, token)
    assert (second, last, end) == ([5, 4, 3, 2], [1, 0], "")
    with pytest.raises(Invalid):
        page_of_newest(newest, lambda item: item, 4, "x")
    with pytest.raises(Invalid):
        page_of_newest(newest, lambda item: item, -4, "")
