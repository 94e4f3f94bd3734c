"""The page while the detector is replaced: it says so, and takes no decision on what another one found."""

from contextlib import closing

from helpers.exported import export_to
from helpers.inspect_page import decide, open_day, watched
from helpers.serving import serving
from playwright.sync_api import expect

from projects.line.page.server import Session, build
from projects.line.runtime import Inspector


def test_a_link_that_was_moved_is_said_on_the_page(browser, session, tmp_path):
    link = tmp_path / 'detector'
    link.symlink_to(session.inspector.source)
    session.served.source = link
    with serving(build(session)) as address, watched(browser, address) as page:
        expect(page.locator('#replaced')).to_be_hidden()
        link.unlink()
        link.symlink_to(export_to(tmp_path / 'next', threshold=0.5))
        page.evaluate("import('/static/drift.js').then(drift => drift.drawDrift())")
        told = f'this server continues with {session.inspector.digest[:12]} until it is started again'
        expect(page.locator('#replaced')).to_contain_text(told)


def test_after_a_restart_with_another_detector_nothing_is_decided_on_the_old_page(browser, session, tmp_path):
    app = build(session)
    other = Inspector(export_to(tmp_path / 'other', threshold=0.5), cache=False)
    with (
        closing(Session(other, tmp_path / 'out-2', session.root)) as restarted,
        serving(app) as address,
        watched(browser, address) as page,
    ):
        open_day(page)
        page.click('#next')
        expect(page.locator('#name')).to_contain_text('day/1.png')
        app.state.session = restarted  # as a server that was started again
        names = [f'day/{k}.png' for k in range(3)]
        restarted.inspect_all([restarted.add(name, session.root / name) for name in names])
        with page.expect_response('**/decision') as answer:
            decide(page, lambda: page.keyboard.press('r'))
        assert answer.value.status == 409
        expect(page.locator('#message')).to_contain_text('another detector is served now')
        expect(page.locator('#decision')).to_have_text('not decided')
        assert float(page.locator('#threshold').input_value()) == 0.9
        page.reload()
        page.wait_for_selector('html[data-ready]', state='attached')
        assert float(page.locator('#threshold').input_value()) == 0.5
        assert restarted.decisions.record.count == 0
