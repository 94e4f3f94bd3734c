"""The inspection page in a real Chromium: upload, folder, threshold, window, zoom, corrections by clicks."""

import json
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from test_deploy import export_to, spot  # noqa: E402
from test_server import serving  # noqa: E402

from projects.xray.deploy import Inspector  # noqa: E402
from projects.xray.deploy.server import Session, build  # noqa: E402

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
expect.set_options(timeout=30_000)  # ms; the usual 5 s are short on a busy machine
CURVE = [dict(threshold=t / 20, escape=t / 20, false_reject=1 - t / 20) for t in range(1, 21)]


@pytest.fixture(scope='module')
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu']
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, tmp_path, request):
    """The page of a running server with an archive of three radiographs; fails on anything in its console.

    With a parameter, the threshold lies that much above the score of day/2.png.
    """
    archive = tmp_path / 'archive'
    (archive / 'day').mkdir(parents=True)
    for k, level in enumerate((180, 255, 230)):
        cv2.imwrite(str(archive / 'day' / f'{k}.png'), spot(20, 30, level))
    cv2.imwrite(str(tmp_path / 'deep.png'), spot(20, 30, 65535, dtype=np.uint16))
    changes = dict(curve=CURVE, depths=['8-bit unsigned', '16-bit unsigned'])
    if hasattr(request, 'param'):
        score = Inspector(export_to(tmp_path / 'first'))(archive / 'day' / '2.png').risk
        changes['threshold'] = score + request.param
    exported = export_to(tmp_path / 'exported', **changes)
    said, asked = [], []
    with serving(build(Session(Inspector(exported), tmp_path / 'out', archive))) as (host, port):
        opened = browser.new_page(viewport=dict(width=1280, height=800))
        opened.on('console', lambda message: said.append(message.text))
        opened.on('pageerror', lambda error: said.append(str(error)))
        opened.on('request', lambda request: asked.append(request.url))
        address = f'http://{host}:{port}/'
        opened.goto(address)
        yield opened
        opened.close()
    # A refused upload or decision is the browser's to mention.
    assert [text for text in said if not re.search('status of 4(15|00)', text)] == []
    assert [url for url in asked if not url.startswith((address, 'data:', 'blob:'))] == []


def corrections(tmp_path):
    return json.loads((tmp_path / 'out' / 'corrections.json').read_text())


def decide(page, press):
    """Decide on a radiograph once it has been looked at for a moment: the page takes nothing before."""
    page.wait_for_timeout(400)
    press()


def test_an_uploaded_16_bit_radiograph_is_judged_windowed_and_zoomed(page, tmp_path):
    page.set_input_files('#file', str(tmp_path / 'deep.png'))
    expect(page.locator('#verdict')).to_have_text('reject')
    expect(page.locator('#boxes tr')).to_have_count(1)
    expect(page.locator('#boxes')).to_contain_text('critical')
    expect(page.locator('#boxes')).to_contain_text('1.000')
    expect(page.locator('#window')).to_have_attribute('max', '65535')
    before = page.locator('#view').screenshot()
    page.fill('#window', '200')  # around level 50: what was one gray level in 8 bits becomes the whole range
    page.fill('#level', '50')
    windowed = page.locator('#view').screenshot()
    assert windowed != before
    page.click('#in')
    assert page.locator('#view').screenshot() != windowed


def test_worst_comes_first_and_the_threshold_decides(page):
    page.select_option('#folder', 'day')
    page.click('#pick')
    expect(page.locator('#left')).to_have_text('3 to decide')
    rows = page.locator('#items button span:first-child')
    expect(rows).to_have_text(['day/1.png', 'day/2.png', 'day/0.png'])
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    expect(page.locator('#verdict')).to_have_text('reject')
    expect(page.locator('#window')).to_have_attribute('max', '255')  # of an 8-bit image
    page.click('#items button >> nth=2')
    expect(page.locator('#verdict')).to_have_text('accept')  # 180 / 255 = 0.71 < 0.9
    expect(page.locator('#rates')).to_contain_text('escape at most 90.0 %')
    page.fill('#threshold', '0.5')
    expect(page.locator('#verdict')).to_have_text('reject')
    expect(page.locator('#rates')).to_contain_text('escape at most 50.0 %, false reject at most 50.0 %')
    page.fill('#threshold', '0.51')  # between two rows the worse of both
    expect(page.locator('#rates')).to_contain_text('escape at most 55.0 %, false reject at most 50.0 %')


def test_a_corrected_radiograph_is_saved_and_the_next_worst_opens(page, tmp_path):
    page.select_option('#folder', 'day')
    page.click('#pick')
    expect(page.locator('#left')).to_have_text('3 to decide')
    page.click('#next')
    expect(page.locator('#boxes tr')).to_have_count(1)
    page.click('#boxes button')  # the finding goes
    expect(page.locator('#boxes tr')).to_have_count(0)
    page.select_option('#class', '1')
    place = page.locator('#view').bounding_box()
    page.keyboard.down('Shift')
    page.mouse.move(place['x'] + place['width'] / 2 - 50, place['y'] + place['height'] / 2 - 50)
    page.mouse.down()
    page.mouse.move(place['x'] + place['width'] / 2 + 50, place['y'] + place['height'] / 2 + 50)
    page.mouse.up()
    page.keyboard.up('Shift')
    expect(page.locator('#boxes')).to_contain_text('by hand')
    expect(page.locator('#part')).to_have_value('day/1')
    page.fill('#part', 'casting 7')
    decide(page, lambda: page.click('#accept'))
    expect(page.locator('#name')).to_contain_text('day/2.png')
    expect(page.locator('#left')).to_have_text('2 to decide')
    said = corrections(tmp_path)
    (kept,) = said['images']
    assert re.fullmatch(r'day/1-[0-9a-f]{12}\.png', kept['file_name'])
    assert (kept['verdict'], kept['part']) == ('accept', 'casting 7')
    assert (tmp_path / 'out' / 'images' / kept['file_name']).is_file()
    (box,) = said['annotations']
    assert box['category_id'] == 2
    x, y, width, height = box['bbox']
    assert abs(x + width / 2 - 32) < 1 and abs(y + height / 2 - 32) < 1
    # By keyboard: the focus is on no field.
    page.locator('#view').click(modifiers=[])
    decide(page, lambda: page.keyboard.press('r'))
    expect(page.locator('#left')).to_have_text('1 to decide')
    assert [i['verdict'] for i in corrections(tmp_path)['images']] == ['accept', 'reject']
    assert corrections(tmp_path)['images'][1]['part'] == 'day/2'


def test_a_part_with_a_critical_box_is_not_accepted(page, tmp_path):
    page.set_input_files('#file', str(tmp_path / 'deep.png'))
    expect(page.locator('#boxes')).to_contain_text('critical')
    decide(page, lambda: page.click('#accept'))
    expect(page.locator('#message')).to_contain_text('a critical defect is still marked')
    assert not (tmp_path / 'out' / 'corrections.json').exists()
    page.click('#boxes button')  # the finding was none
    page.click('#reject')
    expect(page.locator('#message')).to_contain_text('expected a box of critical')
    page.click('#accept')
    expect(page.locator('#message')).to_contain_text('kept in')
    assert corrections(tmp_path)['annotations'] == []


def test_a_key_that_is_held_or_pressed_twice_decides_on_nothing_unseen(page, tmp_path):
    page.select_option('#folder', 'day')
    page.click('#pick')
    expect(page.locator('#left')).to_have_text('3 to decide')
    page.click('#items button >> nth=2')  # nothing at the threshold: it could be accepted
    expect(page.locator('#name')).to_contain_text('day/0.png')
    page.locator('#view').click()
    for _ in range(3):
        page.wait_for_timeout(150)
        page.keyboard.down('a')  # repeats while it is held, as a real keyboard does
    page.keyboard.up('a')
    page.keyboard.press('Control+a')
    page.wait_for_timeout(400)
    assert not (tmp_path / 'out' / 'corrections.json').exists()
    page.keyboard.press('a')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    page.click('#boxes button')
    page.keyboard.press('a')  # within 0.3 s of its appearance, on a machine that is not too busy
    page.wait_for_timeout(600)
    expect(page.locator('#left')).to_have_text('2 to decide')


def test_pixels_name_and_boxes_are_of_one_radiograph(page, tmp_path):
    """A large film is asked for, then a small radiograph, whose pixels are there first."""
    cv2.imwrite(str(tmp_path / 'archive' / 'day' / '3.png'), spot(50, 50, 255))
    page.select_option('#folder', 'day')
    page.click('#pick')
    expect(page.locator('#left')).to_have_text('4 to decide')
    names = page.locator('#items button span:first-child').all_text_contents()

    first, second = names.index('day/3.png'), names.index('day/2.png')
    page.evaluate("""() => {
        const soon = fetch;
        window.fetch = async (path, ...rest) => {
          if (path.endsWith('/4/pixels')) await new Promise(done => setTimeout(done, 1000));
          return soon(path, ...rest);
        };
      }""")
    page.click(f'#items button >> nth={first}')
    page.click(f'#items button >> nth={second}')
    expect(page.locator('#name')).to_contain_text('day/2.png')
    page.wait_for_timeout(2000)
    expect(page.locator('#name')).to_contain_text('day/2.png')
    brightest = page.evaluate('image.pixels.indexOf(Math.max(...image.pixels))')
    assert brightest == int(spot(20, 30, 230).argmax())


@pytest.mark.parametrize('page', [1e-9], indirect=True)  # nothing in float32, as scores are
def test_a_score_just_below_the_threshold_is_accepted_as_the_runtime_does(page, tmp_path):
    assert Inspector(tmp_path / 'exported')(tmp_path / 'archive' / 'day' / '2.png').verdict == 'accept'
    page.set_input_files('#file', str(tmp_path / 'archive' / 'day' / '2.png'))
    expect(page.locator('#verdict')).to_have_text('accept')
    page.set_input_files('#file', str(tmp_path / 'archive' / 'day' / '1.png'))
    expect(page.locator('#verdict')).to_have_text('reject')


def test_a_file_that_is_no_radiograph_is_said(page, tmp_path):
    (tmp_path / 'page.html').write_text('<script>alert(1)</script>')
    page.set_input_files('#file', str(tmp_path / 'page.html'))
    expect(page.locator('#message')).to_contain_text('page.html: expected a radiograph')
