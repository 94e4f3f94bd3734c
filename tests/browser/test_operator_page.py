"""The operator's page: the last verdict big, an old one not shown for a new part, nothing to edit."""

import os
from contextlib import closing

import cv2
import pytest
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
        expect(page.locator('#newest .word')).to_have_text('No verdict')
        expect(page.locator('#newest img')).to_have_count(0)
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
        expect(page.locator('#newest .word')).to_have_text('No verdict')
        expect(page.locator('#newest')).not_to_contain_text('arrived.png')
    page.close()


@pytest.mark.parametrize('size', [(1280, 800), (1920, 1080)])
def test_thirteen_verdicts_are_on_one_screen(browser, tmp_path, size):
    page = browser.new_page(viewport=dict(width=size[0], height=size[1]))
    inspector = Inspector(export_to(tmp_path / 'exported'))
    with (
        closing(Session(inspector, tmp_path / 'out')) as session,
        serving(build(session)) as (host, port),
    ):
        for k in range(13):
            name = f'2026-11-29 shift 1/casting-housing-left-p{k:05}_v1.png'
            session.last.add(name, inspector(spot(20, 30)), 0.9)
        page.goto(f'http://{host}:{port}/operator')
        expect(page.locator('#before li')).to_have_count(12)
        wait_for(lambda: page.evaluate('[...document.images].every(image => image.naturalWidth > 0)'))
        whole = page.evaluate('[document.documentElement.scrollWidth, document.documentElement.scrollHeight]')
        assert whole == list(size)
        last = page.locator('#before li').last.bounding_box()
        assert last['x'] + last['width'] <= size[0] and last['y'] + last['height'] <= size[1]
        assert page.locator('#newest img').bounding_box()['height'] > size[1] / 3
        expect(page.locator('#newest .name')).to_have_text('casting-housing-left-p00012_v1.png')
        expect(page.locator('#before .name').first).to_have_text('…t-p00011_v1')
        hidden = (
            '[...document.querySelectorAll("#before .name")].filter(e => e.scrollHeight > e.clientHeight)'
        )
        assert page.evaluate(f'{hidden}.length') == 0  # names differ in their ends
    page.close()
