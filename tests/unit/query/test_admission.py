import pytest

from k2.errors import Overloaded, Reason
from k2.query.admission import PLACES, Admission, Places
from k2.query.request import Caller, Principal, RequestClass

A, B = Caller(client="a"), Caller(client="b")


def of(request_class, client="a"):
    return Caller(request_class=RequestClass(request_class), client=client)


def refusal(call, *args):
    with pytest.raises(Overloaded) as caught:
        call(*args)
    assert caught.value.reason is Reason.TOO_MANY_QUERIES
    return caught.value


def test_so_many_may_run_and_no_more():
    places = Places(2, "plans are being made")
    places.enter(A)
    places.enter(B)
    assert "2 plans are being made" in refusal(places.enter, Caller(client="c")).message
    places.leave(B, 0.5)
    places.enter(B)
    assert (places.running, places.answered) == (2, 1)


def test_more_cannot_leave_than_entered():
    with pytest.raises(AssertionError):
        Places(1, "plans").leave(A, 0.0)
    with pytest.raises(AssertionError):
        Admission().leave(A, 0.0)


def test_each_class_has_places_of_its_own():
    admission = Admission(dict.fromkeys(RequestClass, 2))
    for client in "ab":
        admission.enter(of("batch", client))
    refusal(admission.check, of("batch", "c"))
    refusal(admission.enter, of("batch", "c"))
    admission.enter(of("interactive"))
    admission.enter(of("critical"))
    assert admission.running == 4
    assert [admission.classes[name].running for name in RequestClass] == [1, 1, 2]
    admission.leave(of("batch", "a"), 0.1)
    admission.enter(of("batch", "c"))
    assert admission.answered == admission.classes[RequestClass.BATCH].answered == 1


def test_one_caller_holds_a_share_of_a_class():
    admission = Admission(dict.fromkeys(RequestClass, 4))
    admission.enter(A)
    admission.enter(A)
    assert "for this caller" in refusal(admission.enter, A).message
    admission.enter(of("batch"))
    admission.enter(B)
    admission.leave(A, 0.1)
    admission.enter(A)


def test_a_principal_is_one_caller_whatever_program_it_uses():
    admission = Admission(dict.fromkeys(RequestClass, 2))
    admission.enter(Caller(Principal("alice"), client="a"))
    refusal(admission.enter, Caller(Principal("alice"), client="b"))
    admission.enter(Caller(Principal("bob"), client="b"))


def test_a_share_is_a_place_at_least():
    Admission(dict.fromkeys(RequestClass, 1)).enter(A)


def test_batch_has_fewer_places_under_pressure_and_the_others_do_not():
    pressure = [0.0]
    admission = Admission(pressure=lambda: pressure[0])
    assert {name: of.most for name, of in admission.classes.items()} == PLACES
    pressure[0] = 1.0
    most = {name: of.most for name, of in admission.classes.items()}
    assert most == {**PLACES, RequestClass.BATCH: 1}
    admission.enter(of("batch"))
    assert "1 batch queries" in refusal(admission.enter, of("batch", "b")).message


def test_the_hint_follows_how_long_queries_take_within_bounds():
    def hint(took_s):
        admission, places = Admission(dict.fromkeys(RequestClass, 1)), Places(1, "plans")
        for _ in range(50):
            admission.enter(A)
            admission.leave(A, took_s)
            places.enter(A)
            places.leave(A, took_s)
        admission.enter(A)
        places.enter(A)
        hint_s = refusal(admission.enter, A).retry_after_s
        assert refusal(places.enter, B).retry_after_s == hint_s
        return hint_s

    assert hint(0.0) == 0.1
    assert hint(2.0) == pytest.approx(2.0, rel=0.01)
    assert hint(1000.0) == 5.0
