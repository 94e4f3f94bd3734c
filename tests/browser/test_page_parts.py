"""A part on the inspection page: its views side by side, a reference by blinking; the list."""

import cv2
import pytest
from helpers.exported import export_to, spot
from helpers.inspect_page import decide, open_day, painted, watched
from helpers.serving import serving, wait_for
from playwright.sync_api import expect

from projects.line.page.server import Session, build
from projects.line.runtime import Inspector


@pytest.fixture
def page(browser, tmp_path):
    """Two parts of three and of one view, one of them unreadable."""
    day = tmp_path / 'archive' / 'day'
    day.mkdir(parents=True)
    for name, level in {'a_0': 255, 'a_1': 240, 'b_0': 230}.items():
        cv2.imwrite(str(day / f'{name}.png'), spot(20, 30, level))
    (day / 'a_2.png').write_bytes(b'')
    exported = export_to(tmp_path / 'exported', origin=dict(part_rule='day/([a-z])'))
    session = Session(Inspector(exported), tmp_path / 'out', tmp_path / 'archive')
    with serving(build(session)) as address, watched(browser, address) as opened:
        open_day(opened, '3 to decide, 1 unreadable')
        yield opened
    session.close()


def test_all_views_of_a_part_are_shown_side_by_side(page):
    page.click('#items button:has-text("a_0")')
    expect(page.locator('#name')).to_contain_text('a_0')
    expect(page.locator('#show-views')).to_contain_text('3 views')
    page.keyboard.press('v')
    expect(page.locator('#views .view')).to_have_count(3)
    words = page.locator('#views .caption').all_text_contents()
    assert words[0] == 'a_0.png: not decided, detector: reject' and words[2] == 'a_2.png: unreadable'
    expect(page.locator('#views .view').nth(2)).to_contain_text('expected')  # why it cannot be read
    painted = page.evaluate("""() => [...document.querySelectorAll('#views canvas:first-child')].map(c => {
        const copy = new OffscreenCanvas(c.width, c.height).getContext('2d');
        copy.drawImage(c, 0, 0);
        return copy.getImageData(c.width / 2, c.height / 2, 1, 1).data[3];
      })""")
    assert painted == [255, 255]
    page.click('#views .view >> nth=1')
    expect(page.locator('#views')).to_be_hidden()
    expect(page.locator('#name')).to_contain_text('a_1')
    page.click('#items button:has-text("b_0")')
    expect(page.locator('#name')).to_contain_text('b_0')
    expect(page.locator('#show-views')).to_be_hidden()
    page.keyboard.press('v')
    expect(page.locator('#message')).to_have_text('part b: this is its only view')
    page.keyboard.press('q')  # the part before
    expect(page.locator('#name')).to_contain_text('a_1')


def test_a_blind_reading_covers_the_views_too(page):
    page.check('#blind')
    page.click('#items button:has-text("a_0")')
    expect(page.locator('#name')).to_contain_text('a_0')
    page.keyboard.press('v')
    expect(page.locator('#views .caption').first).to_have_text('a_0.png: not decided')


def test_a_reference_is_shown_at_the_same_place_while_a_key_is_held(page):
    shown = "import('/static/state.js').then(() => document.getElementById('pixels').toDataURL())"
    page.click('#items button:has-text("b_0")')
    expect(page.locator('#name')).to_contain_text('b_0')
    page.keyboard.down('x')
    page.keyboard.up('x')
    expect(page.locator('#message')).to_contain_text('no reference is kept')
    page.keyboard.press('k')
    reference = page.evaluate(shown)
    page.click('#items button:has-text("a_0")')
    expect(page.locator('#name')).to_contain_text('a_0')
    page.select_option('#preset', 'full')
    painted(page)
    own = page.evaluate(shown)
    page.keyboard.down('x')
    expect(page.locator('#reference')).to_contain_text('reference: day/b_0.png')
    painted(page)
    assert page.evaluate(shown) not in (own,)
    page.keyboard.up('x')
    expect(page.locator('#reference')).to_have_text('')
    painted(page)
    assert page.evaluate(shown) == own != reference


def test_an_unreadable_view_is_decided_and_the_list_is_filtered(page, tmp_path):
    expect(page.locator('#done')).to_have_text('0 of 4 decided')
    page.fill('#inspector', 'anna')
    page.click('#next')
    expect(page.locator('#verdict')).to_have_text('unreadable')
    decide(page, lambda: page.click('#reject'))
    expect(page.locator('#message')).to_contain_text('reject kept in')
    expect(page.locator('#done')).to_have_text('1 of 4 decided')
    assert '"inspector": "anna"' in (tmp_path / 'out' / 'decisions.jsonl').read_text()
    page.select_option('#filter', 'reject')
    expect(page.locator('#items li:visible')).to_have_count(1)
    expect(page.locator('#done')).to_have_text('1 of 4 decided; 3 not shown')
    page.select_option('#filter', 'all')
    page.fill('#search', 'B_')
    expect(page.locator('#items li:visible')).to_have_count(1)
    expect(page.locator('#items li:visible')).to_contain_text('day/b_0.png')
    page.fill('#search', '')
    expect(page.locator('#items img[src]')).to_have_count(3)
    loaded = "() => [...document.querySelectorAll('#items img[src]')].every(i => i.naturalWidth === 80)"
    wait_for(lambda: page.evaluate(loaded))


@pytest.mark.parametrize('width', [390, 1280])
def test_a_long_name_is_cut_where_names_of_a_series_are_alike(page, width, tmp_path):
    place = tmp_path / 'archive' / 'day'
    for name in ('P0007_view1', 'P0008_view2'):
        (place / f'casting-housing-left-{name}.png').write_bytes((place / 'a_0.png').read_bytes())
    page.set_viewport_size(dict(width=width, height=800))
    page.select_option('#folder', 'day')
    page.click('#pick')
    expect(page.locator('#items button')).to_have_count(6)
    button = page.locator('#items button', has_text='P0008_view2.png')
    tail = button.locator('.tail')
    expect(tail).to_have_text('-P0008_view2.png')
    whole, end = button.bounding_box(), tail.bounding_box()
    assert end['x'] + end['width'] <= whole['x'] + whole['width']
    assert button.locator('.head').bounding_box()['width'] > 10
