"""The inspection page in a browser: what its tests do on it."""

import json
import re
from contextlib import contextmanager

from playwright.sync_api import expect

expect.set_options(timeout=30_000)  # ms; the usual 5 s are short on a busy machine
SEEN = "import('/static/state.js').then(({page}) => page.seen)"  # when a radiograph was shown last, in ms
REFRESH = "import('/static/list.js').then(list => list.refresh())"


@contextmanager
def watched(browser, address, **options):
    """The page of a running server; fails on anything in its console and on any request elsewhere."""
    messages, asked = [], []
    host, port = address
    page = browser.new_page(**(dict(viewport=dict(width=1280, height=800)) | options))
    page.on('console', lambda message: messages.append(message.text))
    page.on('pageerror', lambda error: messages.append(str(error)))
    page.on('request', lambda request: asked.append(request.url))
    page.goto(f'http://{host}:{port}/')
    page.wait_for_selector('html[data-ready]', state='attached')
    yield page
    page.close()
    # A refused upload or decision is the browser's to mention.
    assert [text for text in messages if not re.search('status of 4(15|00|09)', text)] == []
    assert [u for u in asked if not u.startswith((f'http://{host}:{port}/', 'data:', 'blob:'))] == []


def corrections(tmp_path):
    """What the page has kept for training."""
    return json.loads((tmp_path / 'out' / 'corrections.json').read_text())


def decide(page, press):
    """Decide on a radiograph once it has been looked at for a moment: the page takes nothing before."""
    page.wait_for_timeout(400)
    press()


def painted(page):
    """Wait until what has changed is on the screen: the page draws once a frame."""
    page.evaluate('() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))')


def open_day(page, left='3 to decide'):
    """Open the archive's folder `day`, and wait until so much is left to decide."""
    page.select_option('#folder', 'day')
    page.click('#pick')
    expect(page.locator('#left')).to_have_text(left)


def draw_box(page):
    """Draw a box of 100 × 100 pixels of the screen around the middle of the view."""
    place = page.locator('#view').bounding_box()
    page.keyboard.down('Shift')
    page.mouse.move(place['x'] + place['width'] / 2 - 50, place['y'] + place['height'] / 2 - 50)
    page.mouse.down()
    page.mouse.move(place['x'] + place['width'] / 2 + 50, place['y'] + place['height'] / 2 + 50)
    page.mouse.up()
    page.keyboard.up('Shift')
