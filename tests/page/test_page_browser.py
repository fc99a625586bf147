"""The page in a real browser on a real stack: live rows, time travel, downloads, links."""

import csv
import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from k2cli.demo import screenshots
from k2cli.operate.running_stack import address_of, based, described_at
from tests.chaos.stack import BRISK, Stack
from tests.support import tools

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.tools,
    pytest.mark.timeout(300),
]
WAIT_MS = 20_000
WIDE = {"width": 1360, "height": 860}
PHONE = {"width": 390, "height": 844}
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    tools.tool("chromium")
    folder = tmp_path_factory.mktemp("page")
    with Stack(folder, "--venue", "synthetic", "--rate", "30", environment=BRISK):
        address = address_of(described_at(folder), "edge", "http")
        assert address
        yield f"{based(address)}/"


@pytest.fixture(scope="module")
def browser(url):
    with screenshots.chromium(tools.tool("chromium")) as running:
        yield running


class Noise:
    """What a page does beside showing: errors it reports, and whom it asks."""

    def __init__(self, page):
        self.errors = []
        self.asked = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        page.on("request", lambda request: self.asked.append(request.url))

    def elsewhere(self, url):
        own = urlsplit(url).netloc
        parts = [urlsplit(one) for one in self.asked]
        return [one for one in parts if one.scheme not in ("data", "blob") and one.netloc != own]


@pytest.fixture
def blank(browser):
    context = browser.new_context(viewport=WIDE, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(WAIT_MS)
    yield opened
    context.close()


@pytest.fixture
def noise(blank):
    return Noise(blank)


@pytest.fixture
def page(blank, noise, url):
    blank.goto(url)
    yield blank
    assert noise.errors == []
    assert noise.asked
    assert noise.elsewhere(url) == []


def ids(page, table="#trades"):
    return page.locator(f"{table} tbody td:last-child").all_inner_texts()


def newest(page):
    return page.locator("#trades tbody td:last-child").first


def test_rows_come_by_themselves_and_say_that_they_are_simulated(page):
    expect(page.locator("#source")).to_contain_text("Simulated data")
    expect(page.locator("#feed-state")).to_have_attribute("data-state", "live")
    page.locator("#trades tbody tr").first.wait_for()
    first = ids(page)[0]
    expect(newest(page)).not_to_have_text(first)
    assert int(ids(page)[0]) > int(first)
    expect(page.locator("#chart canvas").first).to_be_visible()
    expect(page.locator("#legend")).to_contain_text("O")


def test_without_a_stream_the_page_asks_instead(blank, url):
    blank.route("**/stream?*", lambda route: route.fulfill(status=503, json={"reason": "DRAINING"}))
    blank.goto(url)
    expect(blank.locator("#feed-state")).to_have_attribute("data-state", "polling")
    blank.locator("#trades tbody tr").first.wait_for()
    before = ids(blank)
    expect(newest(blank)).not_to_have_text(before[0])


def test_an_edge_that_is_gone_is_said(blank, url):
    blank.goto(url)
    blank.locator("#trades tbody tr").first.wait_for()
    blank.context.set_offline(True)
    expect(blank.locator("#outage")).to_contain_text("UNREACHABLE")
    blank.context.set_offline(False)
    expect(blank.locator("#outage")).to_be_hidden()


def test_the_theme_is_that_of_the_system_until_one_is_chosen(page):
    def paper():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page.emulate_media(color_scheme="light")
    light = paper()
    page.emulate_media(color_scheme="dark")
    assert paper() != light
    page.locator("#theme").click()
    expect(page.locator("#theme")).to_have_text("Light")
    assert paper() == light
    page.reload()
    assert paper() == light, "the choice is kept"


def test_the_level_and_what_presses_it_is_shown(page):
    expect(page.locator("#level-chip")).to_have_text("NORMAL")
    screenshots.show(page, "platform")
    expect(page.locator("#ladder li")).to_have_count(5)
    expect(page.locator("#ladder [aria-current]")).to_contain_text("Normal")
    expect(page.locator("#pressures [role=meter]").first).to_be_visible()
    expect(page.locator("#feeds tbody tr")).to_have_count(3)
    expect(page.locator("#commits tbody tr").first).to_be_visible()


def test_the_slider_asks_for_the_rows_of_a_snapshot(page):
    several = "".join(f":not([max='{few}'])" for few in range(3))
    page.locator(f"#slider{several}").wait_for(timeout=60_000)
    with page.expect_response(  # a question that a newer one overtook has none
        lambda one: "/v1/trades?" in one.url and "as_of=" in one.url and one.status == 200
    ):
        page.locator("#slider").press("Home")
    expect(page.locator("#feed-state")).to_have_attribute("data-state", "as-of")
    page.wait_for_timeout(500)
    oldest = ids(page)
    page.wait_for_timeout(1500)
    assert ids(page) == oldest, "what was committed does not change"
    page.get_by_role("button", name="Later snapshot").click()
    expect(newest(page)).not_to_have_text(oldest[0] if oldest else "no row")
    page.get_by_role("button", name="Back to live").click()
    expect(page.locator("#feed-state")).to_have_attribute("data-state", "live")


def test_an_answer_can_be_downloaded_and_its_link_gives_the_same_rows(page, browser):
    screenshots.show(page, "query")
    shown = page.locator("#grid tbody tr").all_inner_texts()
    expect(page.locator("#answer-facts")).to_contain_text("Estimate")
    with page.expect_download() as loading:
        page.get_by_role("link", name="Download CSV").click()
    with loading.value.path().open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(shown)
    assert all(one["trade_id"] in text for one, text in zip(rows, shown, strict=True))
    link = page.locator("#share").evaluate("link => link.href")
    assert "as_of=k2t" in link
    other = browser.new_page()
    other.goto(link)
    other.locator("#grid tbody tr").first.wait_for(timeout=WAIT_MS)
    assert other.locator("#grid tbody tr").all_inner_texts() == shown
    other.close()


def test_each_shape_has_an_estimate_and_rows(page):
    page.get_by_role("tab", name="Query").click()
    for shape in ("trades", "bars", "latest", "summary", "symbols"):
        page.locator("#ask-shape").select_option(shape)
        page.get_by_role("button", name="Estimate").click()
        expect(page.locator("#answer-state"), shape).to_contain_text("At most")
        page.get_by_role("button", name="Run").click()
        expect(page.locator("#answer-state"), shape).to_contain_text(re.compile(r"^[1-9]\S* rows"))
        expect(page.locator("#grid tbody tr").first, shape).to_be_visible()
        expect(page.locator("#answer-facts"), shape).to_contain_text("k2t1.")


def test_bars_are_filled_and_cut_in_a_time_zone(page):
    page.get_by_role("tab", name="Query").click()
    expect(page.locator("[name=fill]")).to_be_hidden()
    page.locator("#ask-shape").select_option("bars")
    page.locator("[name=fill]").select_option("prev")
    page.locator("[name=tz]").fill("Europe/Berlin")
    with page.expect_response(lambda one: "/v1/bars?" in one.url and "fill=prev" in one.url):
        page.get_by_role("button", name="Run").click()
    page.locator("#grid tbody tr").first.wait_for()
    link = page.locator("#share").evaluate("link => link.href")
    assert "fill=prev&tz=Europe%2FBerlin" in link


def test_a_refusal_is_shown_with_its_reason(page, noise):
    page.get_by_role("tab", name="Query").click()
    page.locator("[name=symbols]").fill("BTCUSTD")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#ask-notice")).to_contain_text("UNKNOWN_SYMBOL")
    said = noise.errors.pop()  # the browser reports the status itself
    assert "404" in said


def test_health_shows_figures_and_says_where_they_come_from(page):
    screenshots.show(page, "health")
    expect(page.locator("#health-origin")).to_contain_text("Prometheus")
    expect(page.get_by_role("heading", name="Platform level")).to_be_visible()
    cost = page.locator("article", has=page.get_by_role("heading", name="Cost of a million"))
    expect(cost).to_contain_text("$")


def test_keys_lead_through_the_tabs(page):
    page.get_by_role("tab", name="Market").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tabpanel", name="Platform")).to_be_visible()
    page.keyboard.press("End")
    expect(page.get_by_role("tabpanel", name="Health")).to_be_visible()


def test_a_phone_need_not_scroll_sideways(browser, url):
    opened = browser.new_page(viewport=PHONE)
    opened.goto(url)
    for view in ("market", "platform", "query", "health"):
        screenshots.show(opened, view)
        wide = opened.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"], view
    opened.close()
