"""The operator's page: the last verdict big, an old one not shown for a new part, nothing to edit."""

import os
from contextlib import closing

import cv2
from axe_playwright_python.sync_playwright import Axe
from helpers.exported import export_to, spot
from helpers.serving import serving, wait_for
from playwright.sync_api import expect

from projects.line.page.server import Session, build
from projects.line.runtime import Inspector
from projects.line.runtime.last import KeptVerdicts


def test_the_last_verdicts_are_shown_big(browser, tmp_path):
    page = browser.new_page(viewport=dict(width=1280, height=800))
    with closing(Session(Inspector(export_to(tmp_path / 'exported')), tmp_path / 'out')) as session:
        with serving(build(session)) as (host, port):
            page.goto(f'http://{host}:{port}/operator')
            expect(page.locator('#newest')).to_have_text('Nothing has been inspected yet.')
            for name, level in (('good', 120), ('bad', 255)):
                cv2.imwrite(str(tmp_path / f'{name}.png'), spot(20, 30, level))
                session.inspect(session.add(f'{name}.png', tmp_path / f'{name}.png'))
            expect(page.locator('#newest .word')).to_have_text('Reject')
            expect(page.locator('#newest')).to_contain_text('bad.png')
            expect(page.locator('#before .word')).to_have_text(['Accept'])
            shape = page.locator('#newest .shape').bounding_box()
            assert shape['height'] > 150  # px: seen from across a hall
            wait_for(lambda: page.evaluate("document.querySelector('#newest img').naturalWidth > 0"))
            assert page.locator('input, button, select, a, [contenteditable]').count() == 0
            found = Axe().run(page).response['violations']
            assert [rule['id'] for rule in found] == []
        expect(page.locator('#status')).to_contain_text('No verdict is shown: the server does not answer')
        expect(page.locator('#newest')).to_have_text('')
    page.close()


def test_a_watched_folder_that_nobody_inspects_shows_no_verdict(browser, tmp_path):
    page = browser.new_page(viewport=dict(width=1280, height=800))
    inspector, found = Inspector(export_to(tmp_path / 'exported')), tmp_path / 'found'
    kept = KeptVerdicts(found)
    with (
        closing(Session(inspector, tmp_path / 'out', watched=found)) as session,
        serving(build(session)) as (host, port),
    ):
        page.goto(f'http://{host}:{port}/operator')
        expect(page.locator('#newest')).to_have_text('Nothing has been inspected yet.')
        kept.add('arrived.png', inspector(spot(20, 30)), 0.9, ['contrast low since 2026-11-29'])
        expect(page.locator('#newest')).to_contain_text('arrived.png')
        expect(page.locator('#newest .word')).to_have_text('Reject')
        wait_for(lambda: page.evaluate("document.querySelector('#newest img').naturalWidth > 0"))
        expect(page.locator('#status')).to_have_text(
            'Requalify the detector: watched folder: contrast low since 2026-11-29'
        )
        kept.close()
        os.utime(found / 'last' / 'verdicts.json', (0, 0))
        expect(page.locator('#status')).to_contain_text('No verdict is shown: nothing inspects the folder')
        expect(page.locator('#newest')).to_have_text('')
    page.close()
