from k2.metrics import EVENTS


def total(route, code):
    labels = {"route": route, "method": "GET", "code": str(code)}
    return EVENTS.get_sample_value("k2_http_requests_total", labels) or 0


def test_requests_are_counted_by_template_and_code(http, parts):
    before, answered = total("/v1/snapshots", 200), parts.tally.answered
    http.get("/v1/snapshots?limit=1")
    assert total("/v1/snapshots", 200) == before + 1
    assert parts.tally.answered == answered + 1


def test_an_unknown_path_is_no_label_of_its_own(http):
    before = total("other", 404)
    http.get("/v1/somewhere/else")
    assert total("other", 404) == before + 1
