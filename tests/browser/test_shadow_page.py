"""Two detectors side by side in a browser: both verdicts of each part, where they differ, and how often."""

from contextlib import closing

import cv2
import pytest
from axe_playwright_python.sync_playwright import Axe
from helpers.exported import export_to, spot
from helpers.serving import serving
from playwright.sync_api import expect

from projects.line.page.server import Session, build
from projects.line.runtime import Inspector
from projects.line.runtime.shadow import Shadow

SIZES = [(390, 800), (1280, 800), (1920, 1080)]


@pytest.fixture
def detectors(tmp_path):
    """Two detectors: the second rejects from a score of 0.43 on, which the first accepts."""
    exported = export_to(tmp_path / 'first', threshold=0.9, origin=dict(part_rule='(P[0-9]+)_view'))
    return Inspector(exported, cache=False), Inspector(
        export_to(tmp_path / 'second', threshold=0.43), cache=False
    )


def inspect(session, folder, levels):
    for name, level in levels.items():
        cv2.imwrite(str(folder / f'{name}.png'), spot(20, 30, level))
        session.inspect(session.add(f'{name}.png', folder / f'{name}.png'))


@pytest.mark.parametrize('size', SIZES)
def test_both_verdicts_of_each_part_and_where_they_differ(browser, detectors, tmp_path, size):
    page = browser.new_page(viewport=dict(width=size[0], height=size[1]))
    with closing(Session(detectors[0], tmp_path / 'out', shadow=detectors[1])) as session:
        with serving(build(session)) as (host, port):
            page.goto(f'http://{host}:{port}/shadow')
            expect(page.locator('#records')).to_contain_text('No radiograph has been inspected by both')
            inspect(session, tmp_path, {'P1_view1': 120, 'P1_view2': 101, 'P2_view1': 255, 'P3_view1': 101})
            expect(page.locator('h2')).to_have_text('The verdicts differ on 1 of 3 parts')
            expect(page.locator('#records')).to_contain_text('1 accept by the first and reject by the second')
            parts, radiographs = page.locator('.counts').all()
            assert parts.locator('td').all_text_contents()[1:] == ['1', '1 ≠', '0', '1']
            assert radiographs.locator('td').all_text_contents()[1:] == ['2', '1 ≠', '0', '1']
            rows = page.locator('.parts tbody tr')
            expect(rows).to_have_count(2)  # the views of the part
            expect(rows.first.locator('th')).to_have_text('P1')
            assert rows.first.locator('.verdict').all_text_contents()[:2] == ['● accept', '✕ reject']
            expect(page.locator('#records')).not_to_contain_text('P2_view1.png')
            page.check('#alike')
            expect(page.locator('.parts tbody tr')).to_have_count(4)
            expect(page.locator('#records')).to_contain_text('P2_view1.png')
            (tmp_path / 'P4_view1.png').write_bytes(b'\x89PNG')
            session.inspect(session.add('P4_view1.png', tmp_path / 'P4_view1.png'))
            expect(page.locator('.parts tbody tr')).to_have_count(5)
            assert page.locator('.counts').first.locator('td').count() == 1 + 9
            assert page.evaluate('document.documentElement.scrollWidth') == size[0]
            for table in page.locator('.counts').all():
                place = table.bounding_box()
                assert place['x'] + place['width'] <= size[0]
            found = Axe().run(page).response['violations']
            assert [rule['id'] for rule in found] == []
        expect(page.locator('#status')).to_contain_text('the server does not answer')
    page.close()


def test_a_watched_folder_is_compared_too(browser, detectors, tmp_path):
    found = tmp_path / 'found'
    found.mkdir()
    shadow = Shadow(detectors[1], detectors[0], found)
    cv2.imwrite(str(tmp_path / 'a.png'), spot(20, 30, 120))
    shadow.see('a.png', '0' * 64, tmp_path / 'a.png', detectors[0].attempt(tmp_path / 'a.png'), detectors[0])
    page = browser.new_page(viewport=dict(width=1280, height=800))
    with (
        closing(Session(detectors[0], tmp_path / 'out', watched=found)) as session,
        serving(build(session)) as (host, port),
    ):
        page.goto(f'http://{host}:{port}/shadow')
        expect(page.locator('h2')).to_have_text('The verdicts differ on 1 of 1 part')
        expect(page.locator('#status')).to_contain_text('No second detector runs in this server now')
        expect(page.locator('.source')).to_contain_text(str(found / 'shadow.jsonl'))
    page.close()
