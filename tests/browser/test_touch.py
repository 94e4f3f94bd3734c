"""The inspection page by touch, on a small screen with two device pixels per CSS pixel."""

import cv2
import pytest
from helpers.inspect_page import open_day, painted, watched
from helpers.serving import serving, wait_for
from playwright.sync_api import expect

from projects.line.page.server import build

VIEW = "import('/static/state.js').then(() => document.getElementById('scale').textContent)"
BOXES = "import('/static/state.js').then(({page}) => page.current.boxes.map(b => b.box))"


@pytest.fixture
def page(browser, session):
    """The page as a telephone shows it."""
    with (
        serving(build(session)) as address,
        watched(
            browser, address, viewport=dict(width=390, height=844), device_scale_factor=2, has_touch=True
        ) as opened,
    ):
        yield opened


class Fingers:
    """Fingers on the picture, by Chromium's own touch events."""

    def __init__(self, page):
        self.channel = page.context.new_cdp_session(page)
        page.locator('#view').scroll_into_view_if_needed()
        place = page.locator('#view').bounding_box()
        self.middle = place['x'] + place['width'] / 2, place['y'] + place['height'] / 2

    def send(self, kind, *places):
        x, y = self.middle
        points = [dict(x=x + dx, y=y + dy, id=k) for k, (dx, dy) in enumerate(places)]
        self.channel.send('Input.dispatchTouchEvent', dict(type=kind, touchPoints=points))

    def drag(self, start, end):
        self.send('touchStart', start)
        for share in (0.25, 0.5, 0.75, 1):
            self.send('touchMove', tuple(a + share * (b - a) for a, b in zip(start, end)))
        self.send('touchEnd')


def opened(page):
    open_day(page)
    page.tap('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    return Fingers(page)


def test_two_fingers_zoom_and_one_moves(page):
    fingers = opened(page)
    before = float(page.evaluate(VIEW).split()[0])
    fingers.send('touchStart', (-40, 0), (40, 0))
    fingers.send('touchMove', (-60, 0), (60, 0))
    fingers.send('touchMove', (-80, 0), (80, 0))
    fingers.send('touchEnd')
    wait_for(lambda: float(page.evaluate(VIEW).split()[0]) == pytest.approx(2 * before, rel=0.05))
    after = float(page.evaluate(VIEW).split()[0])
    painted(page)
    picture = page.locator('#view').screenshot()
    fingers.drag((0, 0), (60, 30))
    wait_for(lambda: page.locator('#view').screenshot() != picture)
    assert float(page.evaluate(VIEW).split()[0]) == after


def test_a_box_is_drawn_moved_and_taken_away_by_touch(page, tmp_path):
    fingers = opened(page)
    page.tap('#tool-box')
    fingers.drag((-50, -50), (50, 50))
    expect(page.locator('#boxes tr')).to_have_count(2)
    drawn = page.evaluate(BOXES)[0]
    page.click('#tool-box')  # moving again; of touches of two kinds, Chromium makes no click
    fingers.drag((0, 0), (30, 0))
    moved = page.evaluate(BOXES)[0]
    assert moved[0] > drawn[0] + 1 and moved[1] == pytest.approx(drawn[1], abs=0.3)
    page.click('#undo')
    wait_for(lambda: page.evaluate(BOXES)[0] == drawn)
    page.click('#boxes .away >> nth=0')
    expect(page.locator('#boxes tr')).to_have_count(1)


def test_what_is_decided_by_touch_is_on_one_screen(page, tmp_path):
    opened(page)
    page.evaluate('scrollTo(0, 0)')
    for control in ('#view', '#verdict', '#decision', '#accept', '#reject'):
        box = page.locator(control).bounding_box()
        assert box['y'] >= 0 and box['y'] + box['height'] <= 844, control
    for control in ('#accept', '#reject'):
        assert page.locator(control).bounding_box()['height'] >= 44
    page.wait_for_timeout(400)
    page.tap('#reject')
    expect(page.locator('#message')).to_contain_text('reject kept in')
    assert cv2.imread(str(next((tmp_path / 'out' / 'images' / 'day').iterdir()))) is not None
