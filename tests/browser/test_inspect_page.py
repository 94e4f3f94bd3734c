"""The inspection page in a real Chromium: upload, folder, threshold, window, zoom, corrections by clicks."""

import re
import threading

import cv2
import pytest
from helpers.exported import spot
from helpers.inspect_page import REFRESH, SEEN, corrections, decide, draw_box, open_day
from helpers.serving import wait_for
from playwright.sync_api import expect

from projects.line.runtime import Inspector
from projects.measures.bounds import rate


def hold(session, name):
    """Let the inspection of a file and of those after it wait; returns the event that lets it go on."""
    attempt, go_on = session.inspector.attempt, threading.Event()

    def wait(path):
        if path.name == name:
            assert go_on.wait(60)
        return attempt(path)

    session.inspector.attempt = wait
    return go_on


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
    open_day(page)
    rows = page.locator('#items .name')
    expect(rows).to_have_text(['day/1.png', 'day/2.png', 'day/0.png'])
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    expect(page.locator('#verdict')).to_have_text('reject')
    expect(page.locator('#window')).to_have_attribute('max', '255')  # of an 8-bit image
    page.click('#items button >> nth=2')
    expect(page.locator('#verdict')).to_have_text('accept')  # 180 / 255 = 0.71 < 0.9
    expect(page.locator('#rates')).to_contain_text(f'escape {rate(18, 20)}')
    page.fill('#threshold', '0.5')
    expect(page.locator('#verdict')).to_have_text('reject')
    expect(page.locator('#rates')).to_have_text(f'escape {rate(10, 20)}false reject {rate(10, 20)}')
    page.fill('#threshold', '0.51')  # between two rows the worse of both
    expect(page.locator('#rates')).to_have_text(f'escape {rate(11, 20)}false reject {rate(10, 20)}')


def test_a_corrected_radiograph_is_saved_and_the_next_worst_opens(page, tmp_path):
    open_day(page)
    page.click('#next')
    expect(page.locator('#boxes tr')).to_have_count(1)
    page.click('#boxes .away')  # the finding goes
    expect(page.locator('#boxes tr')).to_have_count(0)
    page.select_option('#class', '1')
    draw_box(page)
    expect(page.locator('#boxes')).to_contain_text('by hand')
    expect(page.locator('#part')).to_have_value('day/1')
    page.fill('#part', 'casting 7')
    decide(page, lambda: page.click('#accept'))
    expect(page.locator('#name')).to_contain_text('day/2.png')
    expect(page.locator('#left')).to_have_text('2 to decide')
    expect(page.locator('#message')).to_contain_text('accept kept in')
    content = corrections(tmp_path)
    (kept,) = content['images']
    assert re.fullmatch(r'day/1-[0-9a-f]{12}\.png', kept['file_name'])
    assert (kept['verdict'], kept['part']) == ('accept', 'casting 7')
    assert (tmp_path / 'out' / 'images' / kept['file_name']).is_file()
    (box,) = content['annotations']
    assert box['category_id'] == 2
    x, y, width, height = box['bbox']
    assert abs(x + width / 2 - 32) < 1 and abs(y + height / 2 - 32) < 1
    # By keyboard: the focus is on no field.
    page.locator('#view').click(modifiers=[])
    decide(page, lambda: page.keyboard.press('r'))
    expect(page.locator('#left')).to_have_text('1 to decide')
    expect(page.locator('#message')).to_contain_text('reject kept in')
    assert [i['verdict'] for i in corrections(tmp_path)['images']] == ['accept', 'reject']
    assert corrections(tmp_path)['images'][1]['part'] == 'day/2'


def test_what_was_drawn_waits_until_it_is_decided_on(page, tmp_path):
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    draw_box(page)
    page.fill('#part', 'casting 7')
    page.click('#items button >> nth=2')  # another radiograph, before this one is decided on
    expect(page.locator('#name')).to_contain_text('day/0.png')
    expect(page.locator('#boxes')).not_to_contain_text('by hand')
    expect(page.locator('#part')).to_have_value('day/0')
    expect(page.locator('#items button >> nth=0')).to_contain_text('edited')
    page.click('#items button >> nth=0')
    expect(page.locator('#boxes')).to_contain_text('by hand')
    expect(page.locator('#part')).to_have_value('casting 7')
    decide(page, lambda: page.click('#reject'))
    expect(page.locator('#left')).to_have_text('2 to decide')
    expect(page.locator('#items button >> nth=0')).to_contain_text('reject')
    expect(page.locator('#message')).to_contain_text('reject kept in')
    content = corrections(tmp_path)
    assert content['images'][0]['part'] == 'casting 7' and len(content['annotations']) == 2
    page.click('#items button >> nth=0')
    expect(page.locator('#boxes tr')).to_have_count(2)


def test_a_decided_part_that_is_drawn_on_again_is_left_to_decide(page, tmp_path):
    page.set_input_files('#file', str(tmp_path / 'archive' / 'day' / '0.png'))
    expect(page.locator('#verdict')).to_have_text('accept')
    decide(page, lambda: page.click('#accept'))
    expect(page.locator('#message')).to_contain_text('nothing left to decide')
    with page.expect_response('**/api/state?*'):  # asked for once it is open: opening ends a drag
        page.click('#items button')
    draw_box(page)
    expect(page.locator('#decision')).to_have_text('not decided, a rejecting box is marked')
    expect(page.locator('#left')).to_have_text('1 to decide')
    before = page.evaluate(SEEN)
    page.click('#next')  # the same radiograph again
    wait_for(lambda: page.evaluate(SEEN) > before)
    expect(page.locator('#boxes')).to_contain_text('by hand')
    expect(page.locator('#left')).to_have_text('1 to decide')
    decide(page, lambda: page.click('#reject'))
    expect(page.locator('#message')).to_contain_text('nothing left to decide')
    expect(page.locator('#left')).to_have_text('0 to decide')
    assert [image['verdict'] for image in corrections(tmp_path)['images']] == ['reject']


def test_what_was_drawn_is_not_lost_by_leaving_the_page(page, tmp_path):
    asked = []
    page.on('dialog', lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.set_input_files('#file', str(tmp_path / 'archive' / 'day' / '0.png'))
    expect(page.locator('#verdict')).to_have_text('accept')
    draw_box(page)
    expect(page.locator('#decision')).to_have_text('not decided, a rejecting box is marked')
    page.evaluate('setTimeout(() => location.reload())')
    page.wait_for_timeout(1000)
    assert asked == ['beforeunload']
    expect(page.locator('#boxes')).to_contain_text('by hand')
    decide(page, lambda: page.click('#reject'))
    expect(page.locator('#left')).to_have_text('0 to decide')
    expect(page.locator('#decision')).not_to_contain_text('…')  # as long as it is on its way
    page.reload()
    assert asked == ['beforeunload']


def test_what_was_drawn_on_another_file_is_said_to_be_gone(page, session, tmp_path):
    open_day(page)
    page.click('#items button >> nth=0')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    draw_box(page)
    expect(page.locator('#boxes')).to_contain_text('by hand')
    cv2.imwrite(str(tmp_path / 'archive' / 'day' / '1.png'), spot(50, 50, 255))
    session.inspect(2)
    page.click('#items button >> nth=0')
    expect(page.locator('#message')).to_have_text('its file changed: what was drawn on it is gone')
    expect(page.locator('#boxes')).not_to_contain_text('by hand')


def test_nothing_is_changed_while_its_decision_is_on_its_way(page, tmp_path):
    """It would be shown on the page, and not be in the corrections."""
    page.set_input_files('#file', str(tmp_path / 'archive' / 'day' / '0.png'))
    expect(page.locator('#verdict')).to_have_text('accept')
    page.select_option('#class', '1')
    draw_box(page)
    expect(page.locator('#boxes tr')).to_have_count(1)
    page.evaluate("""() => {
        const soon = fetch;
        window.fetch = async (path, ...rest) => {
          if (path.endsWith('/decision')) await new Promise(done => { window.go = done; });
          return soon(path, ...rest);
        };
      }""")
    decide(page, lambda: page.click('#accept'))
    page.select_option('#class', '0')
    draw_box(page)
    page.fill('#part', 'casting 7')
    page.click('#boxes .away')
    expect(page.locator('#boxes tr')).to_have_count(1)
    expect(page.locator('#part')).to_have_value('')  # no rule tells the part
    page.evaluate('go()')
    expect(page.locator('#message')).to_contain_text('kept in')
    expect(page.locator('#boxes tr')).to_have_count(1)
    content = corrections(tmp_path)
    assert [image.get('part') for image in content['images']] == [None]
    assert [box['category_id'] for box in content['annotations']] == [2]
    draw_box(page)
    expect(page.locator('#left')).to_have_text('1 to decide')


def test_a_part_with_a_critical_box_is_not_accepted(page, tmp_path):
    page.set_input_files('#file', str(tmp_path / 'deep.png'))
    expect(page.locator('#boxes')).to_contain_text('critical')
    decide(page, lambda: page.click('#accept'))
    expect(page.locator('#message')).to_contain_text('a critical defect is still marked')
    assert not (tmp_path / 'out' / 'corrections.json').exists()
    page.click('#boxes .away')  # the finding was none
    page.click('#reject')
    expect(page.locator('#message')).to_contain_text('expected a box of critical')
    page.click('#accept')
    expect(page.locator('#message')).to_contain_text('kept in')
    assert corrections(tmp_path)['annotations'] == []


def test_a_key_that_is_held_or_pressed_twice_decides_on_nothing_unseen(page, tmp_path):
    open_day(page)
    page.click('#items button >> nth=2')  # nothing at the threshold: it could be accepted
    expect(page.locator('#name')).to_contain_text('day/0.png')
    page.locator('#view').click()
    press = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'a', bubbles: true, repeat: %s}))"
    just_appeared = (  # at once, on the busiest machine too
        f'import("/static/state.js").then(m => {{ m.page.seen = performance.now(); {press % "false"} }})'
    )
    page.evaluate(just_appeared)
    expect(page.locator('#message')).to_contain_text('it has only just appeared')
    page.wait_for_timeout(400)
    page.evaluate(press % 'true')  # held since the radiograph before
    page.keyboard.press('Control+a')
    page.wait_for_timeout(400)
    assert not (tmp_path / 'out' / 'corrections.json').exists()
    page.keyboard.press('a')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    page.click('#boxes .away')
    page.evaluate(just_appeared)
    page.wait_for_timeout(600)
    expect(page.locator('#left')).to_have_text('2 to decide')


@pytest.mark.parametrize('key', ['Enter', 'Space'])
def test_a_button_that_is_held_decides_once(page, tmp_path, key):
    for k in range(4):  # any could be accepted
        cv2.imwrite(str(tmp_path / 'archive' / 'day' / f'{k}.png'), spot(20, 30, 180 + k))
    open_day(page, '4 to decide')
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/3.png')
    page.wait_for_timeout(400)
    page.focus('#accept')
    for _ in range(40):
        page.keyboard.down(key)  # repeats, as a real keyboard does
        page.wait_for_timeout(50)
    page.keyboard.up(key)
    expect(page.locator('#left')).to_have_text('3 to decide')
    expect(page.locator('#message')).to_contain_text('accept kept in')
    assert len(corrections(tmp_path)['images']) == 1


def test_what_is_not_inspected_or_not_readable_is_not_called_done(page, session, tmp_path):
    (tmp_path / 'archive' / 'day' / 'torn.tif').write_bytes(b'II*\0')
    go_on = hold(session, '2.png')
    open_day(page, '2 to decide, 2 waiting')
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    decide(page, lambda: page.click('#reject'))
    expect(page.locator('#name')).to_contain_text('day/0.png')
    decide(page, lambda: page.click('#accept'))
    expect(page.locator('#message')).to_contain_text('still inspecting: 2 waiting')
    go_on.set()
    expect(page.locator('#left')).to_have_text('1 to decide, 1 unreadable')
    expect(page.locator('#items button').first).to_have_text('day/torn.tifunreadable')
    page.click('#next')
    expect(page.locator('#verdict')).to_have_text('unreadable')
    expect(page.locator('#name')).to_contain_text('day/torn.tif: expected')
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/2.png')
    decide(page, lambda: page.click('#reject'))
    expect(page.locator('#message')).to_contain_text('nothing left to decide, but 1 unreadable')
    page.click('#items button >> nth=0')
    expect(page.locator('#verdict')).to_have_text('unreadable')
    decide(page, lambda: page.click('#reject'))
    expect(page.locator('#message')).to_contain_text('reject kept in')
    expect(page.locator('#decision')).to_have_text('reject')
    expect(page.locator('#message')).to_contain_text('nothing left to decide')
    assert len(corrections(tmp_path)['images']) == 3


def test_what_cannot_be_read_is_shown_again_when_its_folder_is_opened_again(page, session, tmp_path):
    (tmp_path / 'archive' / 'day' / 'torn.tif').write_bytes(b'II*\0')
    page.select_option('#folder', 'day')
    for _ in range(2):
        with page.expect_response('**/v1/inspect/folder'):
            page.click('#pick')
        wait_for(lambda: all(item.state != 'waiting' for item in session.items.values()))
        expect(page.locator('#left')).to_have_text('3 to decide, 1 unreadable')
        page.click('#next')
        expect(page.locator('#verdict')).to_have_text('unreadable')
        page.click('#next')
        expect(page.locator('#name')).to_contain_text('day/1.png')


def test_next_waits_for_the_folder_that_is_being_opened(page, session, tmp_path):
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    (tmp_path / 'archive' / 'day' / 'torn.tif').write_bytes(b'II*\0')
    requests = []
    page.route('**/v1/inspect/folder', lambda route: requests.append(route))
    with page.expect_request('**/v1/inspect/folder'):
        page.click('#pick')
    expect(page.locator('#message')).to_have_text('opening the folder …')
    page.click('#next')
    page.click('#next')
    answer = requests[0].fetch()
    wait_for(lambda: len(session.items) == 4 and all(i.state != 'waiting' for i in session.items.values()))
    expect(page.locator('#name')).to_contain_text('day/1.png')
    requests[0].fulfill(response=answer)
    expect(page.locator('#verdict')).to_have_text('unreadable')


def test_next_is_dropped_once_another_radiograph_was_asked_for(page):
    open_day(page)
    requests = []
    page.route('**/v1/inspect/folder', lambda route: requests.append(route))
    with page.expect_request('**/v1/inspect/folder'):
        page.click('#pick')
    page.click('#next')
    page.click('#items button >> nth=2')
    expect(page.locator('#name')).to_contain_text('day/0.png')
    before = page.evaluate(SEEN)
    with page.expect_response('**/v1/inspect/folder'):
        requests[0].continue_()
    page.evaluate(REFRESH)
    page.wait_for_timeout(400)
    assert page.evaluate(SEEN) == before
    expect(page.locator('#name')).to_contain_text('day/0.png')


def test_what_of_a_folder_leads_out_of_the_archive_is_said(page, tmp_path):
    (tmp_path / 'archive' / 'day' / 'link.png').symlink_to(tmp_path / 'deep.png')
    open_day(page)
    expect(page.locator('#message')).to_have_text('1 lead out of the archive: look at those parts otherwise')


def test_what_was_decided_is_there_when_its_folder_is_opened_again(page, session, tmp_path):
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    page.fill('#part', 'casting 7')
    decide(page, lambda: page.click('#reject'))
    expect(page.locator('#left')).to_have_text('2 to decide')  # at once, before the server answers
    expect(page.locator('#message')).to_contain_text('reject kept in')
    before = corrections(tmp_path)
    with page.expect_response('**/v1/inspect/folder'):
        page.click('#pick')
    wait_for(lambda: all(item.state != 'waiting' for item in session.items.values()))
    page.click('#items button >> nth=0')
    expect(page.locator('#name')).to_contain_text('day/1.png, 64 × 64 px, decided')
    expect(page.locator('#part')).to_have_value('casting 7')
    decide(page, lambda: page.click('#reject'))
    expect(page.locator('#name')).to_contain_text('day/2.png')
    assert corrections(tmp_path) == before
    # What is shown is no longer what the server has.
    cv2.imwrite(str(tmp_path / 'archive' / 'day' / '2.png'), spot(50, 50))
    session.inspect(3)
    decide(page, lambda: page.click('#reject'))
    expect(page.locator('#message')).to_contain_text('this is not the radiograph that was decided on')
    assert corrections(tmp_path) == before


def test_the_list_is_asked_for_once_at_a_time_and_takes_clicks_meanwhile(page, session):
    go_on = hold(session, '1.png')
    page.evaluate("""() => {
        const set = window.setTimeout, clear = window.clearTimeout; window.pending = new Set();
        window.setTimeout = (what, ms) => {
          const t = set(() => { pending.delete(t); what(); }, ms); pending.add(t); return t;
        };
        window.clearTimeout = t => { pending.delete(t); clear(t); };
      }""")
    open_day(page, '1 to decide, 2 waiting')
    for _ in range(3):
        page.evaluate(REFRESH)
    assert page.evaluate('pending.size') <= 1  # none while one is on its way
    page.locator('#items button').first.hover()
    page.mouse.down()
    page.evaluate(REFRESH)
    page.mouse.up()
    expect(page.locator('#name')).to_contain_text('day/0.png')
    go_on.set()
    expect(page.locator('#left')).to_have_text('3 to decide')
    assert page.evaluate('pending.size') == 0


@pytest.mark.parametrize('width', [1280, 390])
def test_everything_fits_wide_and_narrow(page, tmp_path, width):
    page.set_viewport_size(dict(width=width, height=800))
    page.set_input_files('#file', str(tmp_path / 'deep.png'))
    expect(page.locator('#verdict')).to_have_text('reject')
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    assert page.locator('#view').bounding_box()['width'] > 350
    for control in page.locator('button:visible, input:visible, select:visible').all():
        box = control.bounding_box()
        assert box['x'] >= 0 and box['x'] + box['width'] <= width


def test_pixels_name_and_boxes_are_of_one_radiograph(page, tmp_path):
    """A large film is asked for, then a small radiograph, whose pixels are there first."""
    cv2.imwrite(str(tmp_path / 'archive' / 'day' / '3.png'), spot(50, 50, 255))
    open_day(page, '4 to decide')
    names = page.locator('#items .name').all_text_contents()

    first, second = names.index('day/3.png'), names.index('day/2.png')
    page.evaluate("""() => {
        const soon = fetch;
        window.fetch = async (path, ...rest) => {
          if (path.endsWith('/images/4')) await new Promise(done => setTimeout(done, 1000));
          return soon(path, ...rest);
        };
      }""")
    page.click(f'#items button >> nth={first}')
    page.click(f'#items button >> nth={second}')
    expect(page.locator('#name')).to_contain_text('day/2.png')
    page.wait_for_timeout(2000)
    expect(page.locator('#name')).to_contain_text('day/2.png')
    brightest = page.evaluate(
        "import('/static/state.js').then(({page: {image}}) => image.levels[0].mean.indexOf(image.high))"
    )
    assert brightest == int(spot(20, 30, 230).argmax())


@pytest.mark.parametrize('session', [1e-9], indirect=True)  # nothing in float32, as scores are
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


def test_each_of_several_files_that_is_not_taken_is_said(page, tmp_path):
    (tmp_path / 'page.html').write_text('<script>alert(1)</script>')
    (tmp_path / 'torn.png').write_bytes(b'')
    names = ['torn.png', 'page.html', 'deep.png']
    page.set_input_files('#file', [str(tmp_path / name) for name in names])
    expect(page.locator('#message')).to_contain_text(
        '2 of 3 not taken, look at those parts otherwise: torn.png: expected a radiograph, found an empty'
    )
    expect(page.locator('#message')).to_contain_text('; page.html: expected a radiograph (')
    expect(page.locator('#items li')).to_have_count(1)


def test_the_page_asks_what_other_programs_ask(page, tmp_path):
    """Each inspection that the page asks for is a call of the described interface."""
    asked = []
    page.on('request', lambda request: request.method == 'POST' and asked.append(request))
    page.set_input_files('#file', str(tmp_path / 'archive' / 'day' / '1.png'))
    expect(page.locator('#name')).to_contain_text('1.png')
    open_day(page, '4 to decide')
    posted = [request.url.partition('/v1/')[2] for request in asked]
    assert posted == ['inspect?keep=true&name=1.png', 'inspect/folder']
    assert asked[0].headers['content-type'] == 'application/octet-stream'
    assert [request.response().status for request in asked] == [200, 202]
    described = page.evaluate("fetch('/openapi.json').then(answer => answer.json())")
    assert all('/v1/' + path.partition('?')[0] in described['paths'] for path in posted)
