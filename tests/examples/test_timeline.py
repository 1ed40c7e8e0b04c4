"""The timeline in a real browser: posts at once, jobs live, and a flood that obeys."""

from __future__ import annotations

import re
import signal
import time

import pytest
from playwright.sync_api import Page, expect
from tests.examples.conftest import Site, Visitor

TEXT = "Notes upon the memoir, with <b>no markup</b> & no hurry"
# The browser itself reports each answer that is an error; these are the point of the flood.
TOLD_TO_WAIT = "the server responded with a status of 503"


def post(page: Page, text: str = TEXT) -> None:
    page.get_by_label("A new post").fill(text)
    page.get_by_role("button", name="Post", exact=True).click()


def number(page: Page, figure: str) -> int:
    return int(page.locator(f"#{figure}").inner_text().replace(",", ""))


def test_a_post_is_on_the_posters_timeline_at_once(visitor: Visitor):
    page = visitor.opens()
    held: list[object] = []
    page.route("**/posts", lambda route: held.append(route))  # the server does not answer yet

    post(page)

    first = page.locator("#posts .post").first
    expect(first.locator(".text")).to_have_text(TEXT)
    expect(first.locator(".delivery")).to_have_text("sending to 5,000 followers…")
    assert len(held) == 1
    assert visitor.complaints == []


def test_the_job_is_followed_live_until_every_follower_has_the_post(visitor: Visitor):
    page = visitor.opens()
    post(page)

    job = page.locator("#jobs .job").first
    expect(job).to_have_attribute("data-state", "running")
    expect(job.locator(".detail")).to_have_text(re.compile(r"[\d,]+ of 5,000 followers"))
    expect(job).to_have_attribute("data-state", "succeeded")
    expect(page.locator("#posts .post").first.locator(".delivery")).to_have_text(
        re.compile(r"sent to 5,000 followers in \d+\.\d s")
    )

    page.get_by_role("link", name=re.compile("Grace Hopper.s timeline")).click()
    expect(page.locator("#posts .text").first).to_have_text(TEXT)
    assert visitor.complaints == []


def test_a_page_opened_meanwhile_follows_on(visitor: Visitor):
    page = visitor.opens()
    post(page)
    expect(page.locator("#jobs .job").first).to_have_attribute("data-state", "running")

    page.reload()

    expect(page.locator("#jobs .job").first).to_have_attribute("data-state", "succeeded")
    expect(page.locator("#posts .post").first.locator(".delivery")).to_contain_text("sent to")
    assert visitor.complaints == []


def test_in_a_flood_refusals_are_obeyed_and_everybody_gets_in(visitor: Visitor):
    page = visitor.opens()
    answers: list[tuple[float, int, str | None, str | None]] = []
    page.on(
        "response",
        lambda it: (
            answers.append(
                (
                    time.monotonic(),
                    it.status,
                    it.headers.get("retry-after"),
                    it.request.headers.get("backlane-ticket"),
                )
            )
            if it.url.endswith("/hearts") and it.request.method == "POST"
            else None
        ),
    )
    page.get_by_label("Hearts").fill("300")
    page.get_by_role("button", name="Flood").click()

    expect(page.locator("#flood")).to_have_attribute("data-state", "done", timeout=60_000)

    refused = [answer for answer in answers if answer[1] == 503]
    assert {status for _, status, *_ in answers} == {202, 503}
    assert number(page, "accepted") == 300
    assert number(page, "waiting") == 0
    assert number(page, "refused") == len(refused) > 50
    assert all(retry_after and int(retry_after) >= 1 for _, _, retry_after, _ in refused)
    assert any(ticket for _, status, _, ticket in answers if status == 202)
    assert float(page.locator("#tries").inner_text()) <= 3
    hearts = page.locator("#posts .post .hearts b").first
    expect(hearts).to_have_text("312")  # and the dozen it began with: none lost, none twice
    assert [text for text in visitor.complaints if TOLD_TO_WAIT not in text] == []


def test_the_page_works_without_its_script(browser, site: Site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.url)

    post(page)

    expect(page.locator("#posts .text").first).to_have_text(TEXT)
    context.close()


def test_nothing_is_loaded_from_elsewhere_and_no_script_is_written_into_the_page(visitor: Visitor):
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))

    page = visitor.opens()
    ran = page.evaluate(
        "() => { const tag = document.createElement('script'); tag.textContent = 'window.ran = 1';"
        " document.head.append(tag); return window.ran === 1; }"
    )

    assert asked
    assert all(url.startswith(visitor.site.url) for url in asked)
    assert ran is False
    assert any("Content Security Policy" in text for text in visitor.complaints)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_its_window_in_both_colours(browser, site: Site, scheme: str, width: int):
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(site.url)
    post(page, "W" * 280)  # one word, as long as a post may be
    page.locator("#jobs .job").wait_for()

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(244, 245, 250)", "dark": "rgb(18, 20, 29)"}[scheme]
    context.close()


def test_a_site_that_is_killed_goes_on_with_its_work_once_it_is_back(visitor: Visitor):
    page = visitor.opens()
    post(page)
    expect(page.locator("#jobs .detail").first).to_contain_text("of 5,000 followers")
    visitor.site.stop(signal.SIGKILL)

    again = Site(visitor.site.directory)
    try:
        page.goto(again.url)
        expect(page.locator("#posts .delivery").first).to_contain_text("sent to 5,000 followers")
        page.goto(again.url + "/people/grace")
        expect(page.locator("#posts .text").first).to_have_text(TEXT)
        assert again.stop() == 0
    finally:
        again.end()


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_cleanly_in_the_middle_of_its_work(visitor: Visitor, by):
    page = visitor.opens()
    post(page)
    expect(page.locator("#jobs .job").first).to_have_attribute("data-state", "running")

    assert visitor.site.stop(by) == 0
    assert "Traceback" not in visitor.site.log
