"""The radiograph on the page's canvas: small pores at Fit, device pixels, windows, filters, lengths."""

import json
import re
from contextlib import closing, contextmanager

import cv2
import numpy as np
import pytest
from helpers.exported import export_to, spot
from helpers.inspect_page import draw_box, open_day, painted, watched
from helpers.radiograph_files import dicom
from helpers.serving import serving, wait_for
from playwright.sync_api import expect

from projects.benchmark import pores
from projects.benchmark.pores import COPIED, FILM, film
from projects.benchmark.stand_in import NOISE
from projects.line.page.server import Session, build
from projects.line.runtime import Inspector

LEVELS = """() => {
  const {data} = (COPIED)();
  const shown = [];
  for (let k = 0; k < data.length; k += 4) if (data[k + 3]) shown.push(data[k]);
  return shown;
}""".replace('COPIED', COPIED)


@contextmanager
def page_of(browser, tmp_path, files, native=(64, 64), ratio=1, **changes):
    """A page with these radiographs in the folder `day`."""
    archive = tmp_path / 'archive'
    (archive / 'day').mkdir(parents=True)
    for name, content in files.items():
        if isinstance(content, bytes):
            (archive / 'day' / name).write_bytes(content)
        else:
            cv2.imwrite(str(archive / 'day' / name), content)
    exported = export_to(tmp_path / 'exported', native=list(native), depths=[], **changes)
    with (
        closing(Session(Inspector(exported), tmp_path / 'out', archive)) as session,
        serving(build(session)) as address,
        watched(browser, address, device_scale_factor=ratio) as page,
    ):
        yield page


@pytest.mark.parametrize('side', [3, 4])
def test_each_small_pore_of_a_film_is_on_the_canvas_at_fit(browser, tmp_path, side):
    pixels, places = film(side)
    with page_of(browser, tmp_path, {'film.png': pixels}, FILM) as page:
        open_day(page, '1 to decide')
        page.click('#next')
        expect(page.locator('#name')).to_contain_text('4953 × 1091')
        assert page.evaluate("document.getElementById('pixels').width") < 800
        expect(page.locator('#scale')).to_have_text(re.compile(r'1\d(\.\d)? %'))
        assert page.evaluate(pores.SEEN, [places, pores.contrast(pixels), FILM]) == 60


def test_noise_alone_is_averaged_at_fit(browser, tmp_path):
    pixels, _ = film(3, depth=0)
    with page_of(browser, tmp_path, {'film.png': pixels}, FILM) as page:
        open_day(page, '1 to decide')
        page.click('#next')
        expect(page.locator('#scale')).not_to_have_text('')
        full = NOISE * 255 / (int(pixels.max()) - int(pixels.min()))
        assert np.std(page.evaluate(LEVELS)) < full / 2


def test_a_film_that_was_never_at_1_to_1_is_accepted_with_that_remark(browser, tmp_path):
    pixels, _ = film(3)
    with page_of(browser, tmp_path, {'film.png': pixels}, FILM, threshold=1.0) as page:
        open_day(page, '1 to decide')
        page.click('#next')
        expect(page.locator('#unseen')).to_have_text('not seen at 1:1')
        page.fill('#threshold', '1')
        page.wait_for_timeout(400)
        for _ in range(page.locator('#boxes .away').count()):
            page.click('#boxes .away >> nth=0')
        with page.expect_request('**/decision') as sent:
            page.keyboard.press('a')
        assert json.loads(sent.value.post_data)['viewed']['seen_at_1_to_1'] == 0
        expect(page.locator('#message')).to_contain_text('without having been seen whole at 1:1 (at Fit')
        page.keyboard.press('1')
        expect(page.locator('#scale')).to_have_text('100 %')
        expect(page.locator('#unseen')).to_have_text(re.compile(r'\d+ % seen at 1:1'))


@pytest.mark.parametrize('ratio', [1, 2])
def test_at_1_to_1_each_pixel_is_one_of_the_device(browser, tmp_path, ratio):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 64)).astype(np.uint8)
    pixels[0, :2] = 0, 255
    with page_of(browser, tmp_path, {'0.png': pixels}, ratio=ratio) as page:
        open_day(page, '1 to decide')
        page.click('#next')
        size = page.evaluate('[pixels.width / pixels.clientWidth, pixels.height / pixels.clientHeight]')
        assert size == pytest.approx([ratio, ratio], abs=0.01)
        expect(page.locator('#scale')).not_to_have_text('')
        page.keyboard.press('1')
        expect(page.locator('#scale')).to_have_text('100 %')
        assert page.evaluate(LEVELS) == pixels.ravel().tolist()
        page.keyboard.press('+')
        page.keyboard.press('+')
        expect(page.locator('#scale')).to_have_text('156 %')
        assert set(page.evaluate(LEVELS)) == set(pixels.ravel().tolist())  # nearest, no gray between


def test_the_window_is_kept_over_a_series_and_a_preset_is_of_each_radiograph(browser, tmp_path):
    rng = np.random.default_rng(0)
    files = {f'{k}.png': rng.integers(1000 * k, 1000 * k + 500, (64, 64)).astype(np.uint16) for k in (1, 2)}
    with page_of(browser, tmp_path, files) as page:
        open_day(page, '2 to decide')

        def show(row):
            button = page.locator(f'#items button >> nth={row}')
            button.click()
            expect(page.locator('#name')).to_contain_text(button.get_attribute('title'))

        show(0)
        first = page.locator('#level-value').text_content()
        assert first
        show(1)
        expect(page.locator('#level-value')).not_to_have_text(first)  # of each its own range
        page.fill('#window', '300')
        page.fill('#level', '1200')
        expect(page.locator('#preset')).to_have_value('own')
        show(0)
        expect(page.locator('#window-value')).to_have_text('300')
        expect(page.locator('#level-value')).to_have_text('1200')
        page.select_option('#preset', 'percentile')
        expect(page.locator('#level-value')).not_to_have_text('1200')
        page.keyboard.press('w')
        expect(page.locator('#preset')).to_have_value('full')
        expect(page.locator('#window-value')).to_have_text('65535')
        page.select_option('#preset', 'own')  # the last that was set by hand
        expect(page.locator('#level-value')).to_have_text('1200')


def test_the_right_button_drags_window_and_level_and_i_inverts(browser, tmp_path):
    pixels = np.tile(np.linspace(100, 200, 64).astype(np.uint8), (64, 1))
    with page_of(browser, tmp_path, {'0.png': pixels}) as page:
        open_day(page, '1 to decide')
        page.click('#next')
        expect(page.locator('#window-value')).to_have_text('100')
        place = page.locator('#view').bounding_box()
        page.mouse.move(place['x'] + 200, place['y'] + 200)
        page.mouse.down(button='right')
        page.mouse.move(place['x'] + 350, place['y'] + 200)
        page.mouse.up(button='right')
        expect(page.locator('#window-value')).to_have_text('150')
        expect(page.locator('#level-value')).to_have_text('150')
        painted(page)
        inverted = [255 - v for v in page.evaluate(LEVELS)]
        page.keyboard.press('i')
        wait_for(lambda: page.evaluate(LEVELS) == inverted)


@pytest.mark.parametrize('kind', ['highpass', 'local'])
def test_a_filter_shows_a_pore_that_a_thickness_step_hides(browser, tmp_path, kind):
    rng = np.random.default_rng(0)
    pixels = np.tile(np.linspace(2000, 60_000, 512), (512, 1)) + rng.normal(0, 20, (512, 512))
    pixels[240:248, 250:258] -= 200  # less than one gray level of the whole range
    with page_of(browser, tmp_path, {'0.png': pixels.round().astype(np.uint16)}, (512, 512)) as page:
        open_day(page, '1 to decide')
        page.click('#next')
        expect(page.locator('#scale')).not_to_have_text('')
        page.keyboard.press('1')
        expect(page.locator('#scale')).to_have_text('100 %')

        def contrast():
            shown = np.array(page.evaluate(LEVELS)).reshape(512, 512).astype(float)
            pore = shown[242:246, 252:256].mean()
            return (shown[242:246, 264:280].mean() + shown[242:246, 228:244].mean()) / 2 - pore

        painted(page)
        assert abs(contrast()) < 2
        page.select_option('#filter-kind', kind)
        wait_for(lambda: contrast() > 30)


@pytest.mark.parametrize(
    ('keyword', 'words'),
    [('PixelSpacing', '200 × 100 µm per px (PixelSpacing)'), ('ImagerPixelSpacing', 'ImagerPixelSpacing')],
)
def test_lengths_are_in_mm_by_the_pitch_that_a_file_states(browser, tmp_path, keyword, words):
    content = dicom(spot(20, 30).astype(np.uint16), **{keyword: [0.1, 0.2]})  # along y, along x
    with page_of(
        browser, tmp_path, {'0.dcm': content}, window=dict(type='absolute', low=0, high=255)
    ) as page:
        open_day(page, '1 to decide')
        page.click('#next')
        expect(page.locator('#pitch-words')).to_contain_text(words)
        expect(page.locator('#boxes')).to_contain_text('1.60 × 0.80 mm')  # 8 px along each
        page.click('#tool-ruler')
        place = page.locator('#view').bounding_box()
        x, y = place['x'] + place['width'] / 2, place['y'] + place['height'] / 2
        page.mouse.move(x, y)
        expect(page.locator('#under')).to_have_text(re.compile('x 3[12], y 3[12]: 100'))
        page.mouse.down()
        scale = float(page.locator('#scale').text_content().split()[0]) / 100
        page.mouse.move(x + 10 * scale, y)
        page.mouse.up()
        expect(page.locator('#profile-words')).to_contain_text(
            re.compile(r'^(1\.99|2\.0\d) mm; values 100 to 100$')
        )


def test_a_pitch_is_given_where_the_file_states_none(browser, tmp_path):
    with page_of(browser, tmp_path, {'0.png': spot(20, 30)}) as page:
        open_day(page, '1 to decide')
        page.click('#next')
        expect(page.locator('#boxes')).to_contain_text('8 × 8 px')
        page.fill('#pitch', '50')
        expect(page.locator('#boxes')).to_contain_text('0.40 × 0.40 mm')
        expect(page.locator('#pitch-words')).to_have_text('50 µm per px (set by hand)')
        draw_box(page)
        expect(page.locator('#boxes')).to_contain_text('mm')


# How much of the canvas above the picture is drawn on within a box [x1, y1, x2, y2] of a 64 px radiograph.
DRAWN = """([x1, y1, x2, y2]) => {
  const {width, height} = document.getElementById('view'), scale = Math.min(width, height) / 64 * .96;
  const left = (width - 64 * scale) / 2, top = (height - 64 * scale) / 2;
  const copy = new OffscreenCanvas(width, height);
  const context = copy.getContext('2d', {willReadFrequently: true});
  context.drawImage(document.getElementById('view'), 0, 0);
  const sides = [left + x1 * scale, top + y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale].map(Math.round);
  return context.getImageData(...sides).data.filter((value, k) => k % 4 === 3 && value > 99).length / scale;
}"""


def test_a_mask_is_drawn_around_its_pixels_until_its_box_is_changed(browser, tmp_path, monkeypatch):
    raster = np.zeros((1, 28, 28), np.float32)
    raster[:, 7:21, 7:21] = 1  # the middle half of the box: 4 of 8 px
    started = Inspector._start

    def start(inspector, *args):
        started(inspector, *args)
        find = inspector._run
        inspector._run = lambda *inputs: (*find(*inputs), raster)

    inside = [17.5, 27.5, 22.5, 32.5]  # of the box 16, 26, 24, 34
    with page_of(browser, tmp_path / 'boxes', {'0.png': spot(20, 30)}) as page:
        open_day(page, '1 to decide')
        page.click('#next')
        expect(page.locator('#boxes .away')).to_have_count(1)
        assert page.evaluate(DRAWN, inside) == 0
    monkeypatch.setattr(Inspector, '_start', start)
    with page_of(browser, tmp_path / 'masks', {'0.png': spot(20, 30)}) as page:
        open_day(page, '1 to decide')
        page.click('#next')
        expect(page.locator('#boxes .away')).to_have_count(1)
        assert page.evaluate(DRAWN, inside) > 4 * 3  # a line around 3.5 x 3.5 px, some canvas px wide
        assert page.evaluate(DRAWN, [19.5, 29.5, 20.5, 30.5]) == 0
        page.keyboard.press('.')  # selects it, and goes there
        page.keyboard.press('f')
        wait_for(lambda: page.evaluate(DRAWN, inside) > 12)
        page.keyboard.press('ArrowRight')
        wait_for(lambda: page.evaluate(DRAWN, inside) == 0)
        page.keyboard.press('Control+z')
        wait_for(lambda: page.evaluate(DRAWN, inside) > 12)
