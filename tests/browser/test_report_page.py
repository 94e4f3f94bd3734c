"""The page of a report in a real Chromium: no error, filters, narrow and wide, by keyboard, its weight."""

import json
import re
import shutil
from contextlib import contextmanager

import pytest
from helpers.drawn_runs import STEM, draw_run, draw_study

from projects.report.measured import Settings
from projects.report.page import write_report
from projects.report.runs import read_runs

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    """A report of eight runs with a full gallery; returns its folder and what it says."""
    root = tmp_path_factory.mktemp('study')
    folders = draw_study(root, {'scratch': 0.3, 'simsiam': 0.6}, fractions=(10, 100), parts=34)
    runs, left_out = read_runs(folders)
    assert left_out == []
    command = 'python tools/report.py <b>&'
    return root / 'out', write_report(root / 'out', runs, ['<i>x</i>'], Settings(resamples=50), 500, command)


@pytest.fixture(scope='module')
def crowded(report):
    """Runs of two groups, so few pictures in the page that most escapes lie beside it; returns the folder."""
    root = report[0].parent
    truth = json.loads(next(root.glob('runs/*/*/predictions.json')).read_text())['truth']
    longer = draw_run(root, root / 'longer', truth, skill=0.3, stem=STEM.replace('8e', '16e'))
    runs, _ = read_runs([*sorted(root.glob('runs/*/*')), longer])
    result = write_report(root / 'crowded', runs, [], Settings(resamples=5), 70)['pictures']
    assert result['in_page'] == 70 and result['beside'] > 220  # more than a file of them
    return root / 'crowded'


@contextmanager
def opened(browser, folder):
    """A page, opened from disk without a network, and what it says on its console."""
    context = browser.new_context(offline=True, viewport=dict(width=1280, height=900))
    page = context.new_page()
    messages = []
    page.on('console', lambda message: messages.append(message.text))
    page.on('pageerror', lambda error: messages.append(str(error)))
    page.on('requestfailed', lambda request: messages.append(f'{request.url[:80]} failed'))
    page.goto((folder / 'index.html').as_uri())
    yield page, messages
    context.close()


@pytest.fixture
def page(browser, report):
    """The page; fails when it says anything on its console."""
    with opened(browser, report[0]) as (page, messages):
        yield page
    assert messages == []


def test_the_verdict_is_on_top_and_a_name_is_never_markup(page, report):
    assert page.inner_text('#verdict') == report[1]['verdict'][0]
    assert page.locator('#proof').bounding_box()['y'] < 100
    assert page.locator('#verdict').bounding_box()['y'] < 500
    assert 'Left out: <i>x</i>' in page.inner_text('header')
    assert 'python tools/report.py <b>&' in page.inner_text('#origins')
    assert page.locator('svg[role=img]').count() >= 6  # labels, loss, val, PR, FROC, POD
    assert page.locator('#pictures .item').count() == 60


def test_what_is_proven_stands_on_top_as_three_tiles(page):
    titles = page.locator('#proof .tile span:first-child').all_text_contents()
    assert titles == ['Critical parts that escape', 'Sound parts falsely rejected', 'Proof']
    values = page.locator('#proof .tile b').all_text_contents()
    assert re.fullmatch(r'\d+ of 32', values[0]) and re.fullmatch(r'\d+ of 2', values[1])
    assert values[2] == 'No proof'
    notes = page.locator('#proof .tile span:last-child').all_text_contents()
    assert all('at most' in note for note in notes[:2]) and notes[2]
    assert page.inner_text('#statement').endswith('.')
    assert page.locator('.forest svg[role=img]').count() == 1


@pytest.mark.parametrize('width', [1280, 1920])
def test_no_column_of_the_table_of_parts_lies_beyond_its_edge(page, width):
    page.set_viewport_size(dict(width=width, height=900))
    header = page.locator('#parts ~ .scroll').first.locator('th').filter(has_text='proof')
    box = header.bounding_box()
    assert box['x'] + box['width'] <= width
    frame = page.locator('#parts ~ .scroll').first
    assert frame.evaluate('e => e.scrollWidth <= e.clientWidth')


def test_a_phone_shows_every_row_of_the_forest_plot_whole(page):
    page.set_viewport_size(dict(width=390, height=900))
    assert page.evaluate('(f => f.scrollWidth <= f.clientWidth)(document.querySelector(".forest"))')
    box = page.locator('.forest svg').bounding_box()
    assert 300 < box['width'] <= 390 - 2 * 12


def test_a_long_name_in_a_filter_does_not_widen_the_page(page):
    page.set_viewport_size(dict(width=390, height=900))
    page.eval_on_selector('#f-group option:last-child', 'e => e.textContent = "a long name ".repeat(16)')
    assert page.evaluate('document.documentElement.scrollWidth') == 390


def test_five_hundred_items_weigh_at_most_five_megabytes(page, report):
    items = json.loads(page.text_content('#items'))
    assert len(items) == 500
    assert all(item['image'] for item in items)
    assert (report[0] / 'index.html').stat().st_size <= 5_000_000


def test_filters_and_more(page):
    page.select_option('#f-kind', 'missed')
    kinds = page.locator('.item .words b').all_text_contents()
    assert len(kinds) == 60 and all(kind.startswith('missed') for kind in kinds)
    page.select_option('#f-arm', 'simsiam')
    assert all('simsiam' in text for text in page.locator('.item .words').all_text_contents())
    page.fill('#f-file', 'p003_V1')
    texts = page.locator('.item .words').all_text_contents()
    assert texts and all('p003_v1.png' in text for text in texts)
    assert page.inner_text('#count') == f'{len(texts)} of 500'
    page.fill('#f-file', 'no such file')
    assert page.locator('.item').count() == 0 and page.inner_text('#count') == '0 of 500'
    page.click('#reset')
    assert page.inner_text('#count') == '500 of 500'
    page.click('#more')
    assert page.locator('#gallery .item').count() == 120


def test_groups_types_and_parts_are_filtered_by_keyboard(browser, crowded):
    with opened(browser, crowded) as (page, messages):
        items = json.loads(page.text_content('#items'))
        more = json.loads(page.text_content('#choices'))
        assert len(more['group']) == 2 and len(more['part']) > len({item['part'] for item in items})
        for key, choices in more.items():
            chosen = choices[-1]
            page.focus(f'#f-{key}')
            for _ in choices:
                page.keyboard.press('ArrowDown')
            assert page.input_value(f'#f-{key}') == chosen
            matching = [item for item in items if str(item[key]) == chosen]
            assert page.inner_text('#count').startswith(f'{len(matching)} of 70; ')
            assert page.locator('#gallery .item').count() == min(len(matching), 60)
            page.click('#reset')
        assert messages == []


def test_pictures_beside_the_page_are_fetched_from_disk(browser, crowded):
    with opened(browser, crowded) as (page, messages):
        beside = sum(chunk['pictures'] for chunk in json.loads(page.text_content('#chunks')))
        assert page.inner_text('#count') == f'70 of 70; {beside} more not fetched yet'
        page.click('#more')  # the 70 of the page and the first of the others
        page.wait_for_function("document.querySelectorAll('#gallery .item').length == 120")
        assert page.inner_text('#count') == f'270 of 270; {beside - 200} more not fetched yet'
        assert page.locator('#gallery .item img').count() == 240
        part = page.locator('#f-part option').last.text_content()
        page.select_option('#f-part', part)
        page.click('#more')  # looks through all
        page.wait_for_function("!document.getElementById('count').textContent.includes('fetched')")
        found = page.locator('#gallery .item').count()
        assert page.inner_text('#count') == f'{found} of {70 + beside}' and found > 4
        assert page.locator('#more').is_hidden() and page.locator('#lost').is_hidden()
        assert messages == []


def test_nothing_moves_under_the_pointer_while_pictures_come_into_view(browser, crowded):
    """A button that moves between press and release of the mouse is not clicked."""
    with opened(browser, crowded) as (page, messages):
        before = page.evaluate("document.getElementById('more').offsetTop")
        for position in range(0, before, 400):
            page.evaluate(f'scrollTo(0, {position})')
            page.evaluate(
                '() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))'
            )
        assert page.evaluate("document.getElementById('more').offsetTop") == before
        assert messages == []


@pytest.mark.parametrize('damage', ['gone', 'cut'])
def test_a_page_without_its_pictures_says_so(browser, crowded, tmp_path, damage):
    page_alone = tmp_path / 'moved'
    page_alone.mkdir()
    shutil.copy(crowded / 'index.html', page_alone)
    if damage == 'cut':
        shutil.copytree(crowded / 'pictures', page_alone / 'pictures')
        for file in (page_alone / 'pictures').iterdir():
            file.write_text(file.read_text()[:1000])
    with opened(browser, page_alone) as (page, messages):
        assert page.locator('#gallery .item').count() == 60
        page.click('#more')
        page.locator('#lost').wait_for(state='visible')
        assert 'is not beside this page or damaged' in page.inner_text('#lost')
        assert page.locator('#gallery .item').count() == 70 and page.locator('#more').is_visible()
        (page_alone / 'pictures').mkdir(exist_ok=True)
        shutil.copytree(crowded / 'pictures', page_alone / 'pictures', dirs_exist_ok=True)
        page.click('#more')  # put back where it belongs
        page.wait_for_function("document.querySelectorAll('#gallery .item').length == 130")
        assert page.locator('#lost').is_hidden()
        assert messages != []  # of the browser


def test_brightness_and_contrast_change_the_pictures(page):
    def look():
        return page.eval_on_selector('.pane img', 'image => getComputedStyle(image).filter')

    before = look()
    page.locator('#brightness').fill('2')
    page.locator('#contrast').fill('1.5')
    assert look() == 'brightness(2) contrast(1.5)' != before
    page.click('#reset')
    assert look() == before


def test_boxes_lie_on_the_pictures(page):
    picture = page.locator('.pane.truth img').first.bounding_box()
    box = page.locator('.pane.truth rect').first.bounding_box()
    assert picture['width'] > 100
    assert picture['x'] - 2 <= box['x'] and box['x'] + box['width'] <= picture['x'] + picture['width'] + 2


@pytest.mark.parametrize('width', [1280, 390])
def test_the_page_is_readable_wide_and_narrow(page, width):
    page.set_viewport_size(dict(width=width, height=844))
    assert page.evaluate('document.documentElement.scrollWidth') <= width  # tables scroll in their own frame
    small = page.evaluate(
        """() => [...document.querySelectorAll('p, td, th, a, label, button, .words, svg text')].filter(e => {
          const shown = e.getBoundingClientRect();
          const m = e.tagName === 'text' ? e.getScreenCTM() : {a: 1, b: 0};
          const size = parseFloat(getComputedStyle(e).fontSize) * Math.hypot(m.a, m.b);
          return shown.width && e.textContent.trim() && size < 9;
        }).map(e => e.textContent.trim().slice(0, 40))"""
    )
    assert small == []


def test_everything_is_reached_by_keyboard(page):
    reached = set()
    for _ in range(60):
        page.keyboard.press('Tab')
        reached.add(page.evaluate('(document.activeElement.id || document.activeElement.className)'))
        if 'item' in reached:
            break
    controls = {'f-kind', 'f-group', 'f-arm', 'f-type', 'f-part', 'f-file', 'brightness', 'contrast', 'reset'}
    assert {'scroll', 'item'} | controls <= reached
    page.keyboard.press('Enter')
    assert page.locator('#large').is_visible()
    page.keyboard.press('Escape')
    assert not page.locator('#large').is_visible()


def test_an_enlarged_picture_has_the_radiographs_own_pixels_and_their_surroundings(page, report):
    items = json.loads(page.text_content('#items'))
    page.click('.item >> nth=0')
    page.wait_for_function("document.querySelector('#real img').naturalWidth > 0")
    item = items[0]
    left, top, width, height = item['around']
    assert (report[0] / item['real']).is_file()
    natural = page.eval_on_selector('#real img', 'image => [image.naturalWidth, image.naturalHeight]')
    assert natural == [width, height] and width >= item['at'][2]
    page.select_option('#zoom', '4')
    shown = page.locator('#real img').bounding_box()
    assert (round(shown['width']), round(shown['height'])) == (4 * width, 4 * height)
    x1, y1, x2, y2 = item['truth'][0][0]
    box = page.locator('#real rect.truth').first.bounding_box()
    assert box['x'] - shown['x'] == pytest.approx(4 * (x1 - left), abs=3)
    assert box['width'] == pytest.approx(4 * (x2 - x1), abs=5)  # with its line
    seen = page.locator('#frame').bounding_box()
    assert seen['x'] <= box['x'] + box['width'] / 2 <= seen['x'] + seen['width']
    assert seen['y'] <= box['y'] + box['height'] / 2 <= seen['y'] + seen['height']


def test_the_next_picture_comes_by_key_and_is_brightened_in_the_dialog(page):
    page.click('.item >> nth=0')
    first = page.inner_text('#large-words')
    assert page.locator('#before').is_disabled()
    page.keyboard.press('ArrowRight')
    assert page.inner_text('#large-words') != first
    page.keyboard.press('ArrowLeft')
    assert page.inner_text('#large-words') == first
    page.keyboard.down('h')
    assert page.locator('#real svg').is_hidden()
    page.keyboard.up('h')
    assert page.locator('#real svg').is_visible()
    page.locator('#large-brightness').fill('2')
    look = 'image => getComputedStyle(image).filter'
    assert page.eval_on_selector('#real img', look) == 'brightness(2) contrast(1)'
    assert page.input_value('#brightness') == '2'


@pytest.mark.parametrize('width', [390, 1280])
def test_the_enlarged_picture_fits_the_screen(page, width):
    page.set_viewport_size(dict(width=width, height=844))
    page.click('.item >> nth=0')
    box = page.locator('#large').bounding_box()
    assert box['x'] >= 0 and box['x'] + box['width'] <= width and box['y'] + box['height'] <= 844
    for control in page.locator('#large button, #large input, #large select, #frame').all():
        inner = control.bounding_box()
        assert inner['x'] >= box['x'] and inner['x'] + inner['width'] <= box['x'] + box['width']
    assert page.evaluate('document.documentElement.scrollWidth') <= width


def test_without_its_pixels_the_small_picture_is_enlarged_and_it_is_said(browser, report, tmp_path):
    shutil.copy(report[0] / 'index.html', tmp_path)
    with opened(browser, tmp_path) as (page, messages):
        page.click('.item >> nth=0')
        page.locator('#large-lost').wait_for(state='visible')
        page.wait_for_function("document.querySelector('#real img').naturalWidth === 112")
        assert messages != []  # of the browser
