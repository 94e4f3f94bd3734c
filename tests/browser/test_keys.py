"""The inspection page by keyboard alone: keys wherever the focus is, boxes, undo and redo, blind reading."""

import json

import pytest
from helpers.inspect_page import corrections, decide, draw_box, open_day
from playwright.sync_api import expect

BOXES = "import('/static/state.js').then(({page}) => page.current.boxes.map(b => b.box))"


def boxes(page):
    return page.evaluate(BOXES)


@pytest.mark.parametrize('slider', ['#window', '#gamma', '#threshold'])
@pytest.mark.parametrize('caps', [False, True])
def test_keys_work_after_a_slider_was_touched_and_with_caps_lock(page, tmp_path, slider, caps):
    def press(key):
        page.keyboard.press(key.upper() if caps else key)

    open_day(page)
    page.locator('#view').focus()
    press('n')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    page.click(slider)
    page.fill('#threshold', '0.9')
    page.focus(slider)
    decide(page, lambda: press('r'))
    expect(page.locator('#message')).to_contain_text('reject kept in')
    assert [image['verdict'] for image in corrections(tmp_path)['images']] == ['reject']


def test_a_field_of_text_takes_letters_and_a_list_its_own(page, tmp_path):
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    page.wait_for_timeout(400)
    for field in ('#part', '#search', '#folder'):
        page.focus(field)
        page.keyboard.press('r')
    page.wait_for_timeout(200)
    assert not (tmp_path / 'out' / 'corrections.json').exists()


@pytest.mark.parametrize('choice', ['#theme', '#filter', '#preset', '#filter-kind', '#class'])
def test_keys_work_after_a_choice_by_mouse_and_each_choice_is_reached_by_keys(page, choice):
    open_day(page)
    page.locator('#view').focus()
    page.keyboard.press('n')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    values = page.locator(f'{choice} option').evaluate_all('all => all.map(option => option.value)')
    page.select_option(choice, values[0])
    page.focus(choice)
    for _ in values[1:]:
        page.keyboard.press('ArrowDown')
    assert page.locator(choice).input_value() == values[-1]
    assert page.evaluate('document.activeElement.id') == choice[1:]
    page.dispatch_event(choice, 'pointerdown')
    page.select_option(choice, values[0])
    page.keyboard.press('n')
    expect(page.locator('#name')).to_contain_text('day/2.png')


def test_a_box_is_drawn_moved_resized_and_reclassed_without_a_mouse(page, tmp_path):
    open_day(page)
    page.keyboard.press('n')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    page.locator('#view').focus()
    page.keyboard.press('.')
    expect(page.locator('#message')).to_contain_text('finding 1 of 1')
    page.keyboard.press('Delete')
    expect(page.locator('#boxes tr')).to_have_count(0)
    page.keyboard.press('d')
    expect(page.locator('#boxes tr')).to_have_count(1)
    (before,) = [b for b in boxes(page)][:1]
    page.keyboard.press('ArrowRight')
    page.keyboard.press('Shift+ArrowDown')
    assert boxes(page)[0] == [before[0] + 1, before[1] + 10, before[2] + 1, before[3] + 10]
    page.keyboard.press('Control+ArrowLeft')
    assert boxes(page)[0][2] == before[2]
    page.keyboard.press('Shift+Digit2')
    expect(page.locator('#boxes')).to_contain_text('minor')
    decide(page, lambda: page.keyboard.press('a'))
    expect(page.locator('#message')).to_contain_text('accept kept in')
    content = corrections(tmp_path)
    assert [box['category_id'] for box in content['annotations']] == [2]


def test_changes_are_undone_and_put_back_in_order(page):
    open_day(page)
    page.click('#next')
    expect(page.locator('#boxes tr')).to_have_count(1)
    found = boxes(page)
    draw_box(page)
    expect(page.locator('#boxes tr')).to_have_count(2)
    drawn = boxes(page)
    page.click('#boxes .away >> nth=1')
    expect(page.locator('#boxes tr')).to_have_count(1)
    page.keyboard.press('Control+z')
    expect(page.locator('#boxes tr')).to_have_count(2)
    assert boxes(page) == drawn
    page.click('#undo')
    expect(page.locator('#boxes tr')).to_have_count(1)
    assert boxes(page) == found
    expect(page.locator('#items button >> nth=0')).not_to_contain_text('edited')
    page.keyboard.press('Control+z')
    expect(page.locator('#message')).to_have_text('nothing to take back')
    page.keyboard.press('Control+Shift+z')
    expect(page.locator('#boxes tr')).to_have_count(2)
    page.click('#redo')
    expect(page.locator('#boxes tr')).to_have_count(1)
    assert boxes(page) == drawn[:1]


def test_a_box_is_moved_and_resized_by_the_mouse(page):
    open_day(page)
    page.click('#next')
    expect(page.locator('#boxes tr')).to_have_count(1)
    draw_box(page)
    before = boxes(page)[0]
    place = page.locator('#view').bounding_box()
    x, y = place['x'] + place['width'] / 2, place['y'] + place['height'] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y)
    page.mouse.up()
    moved = boxes(page)[0]
    shift = moved[0] - before[0]
    assert shift > 1 and [round(b - a, 1) for a, b in zip(before, moved)] == pytest.approx(
        [shift, 0, shift, 0], abs=0.2
    )
    page.mouse.move(x + 90, y + 50)  # its lower right corner
    page.mouse.down()
    page.mouse.move(x + 110, y + 80)
    page.mouse.up()
    resized = boxes(page)[0]
    assert resized[:2] == moved[:2] and resized[2] > moved[2] and resized[3] > moved[3]


def test_boxes_are_hidden_while_a_key_is_held(page):
    open_day(page)
    page.click('#next')
    expect(page.locator('#boxes tr')).to_have_count(1)
    page.keyboard.down('h')
    expect(page.locator('#boxes tr')).to_have_count(0)
    page.keyboard.up('h')
    expect(page.locator('#boxes tr')).to_have_count(1)


def test_a_blind_reading_comes_first_and_is_told(page):
    page.check('#blind')
    open_day(page)
    page.click('#items button:has-text("day/1.png")')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    expect(page.locator('#verdict')).to_have_text('covered')
    expect(page.locator('#boxes tr')).to_have_count(0)
    decide(page, lambda: page.keyboard.press('a'))
    expect(page.locator('#message')).to_contain_text('your reading: accept; the detector proposes reject')
    expect(page.locator('#boxes tr')).to_have_count(1)
    page.wait_for_timeout(400)
    with page.expect_request('**/decision') as sent:
        page.keyboard.press('r')
    assert json.loads(sent.value.post_data)['viewed']['blind'] == 'accept'
    expect(page.locator('#left')).to_have_text('2 to decide')


def test_proposal_and_decision_stand_in_two_places(page):
    open_day(page)
    page.click('#next')
    expect(page.locator('#verdict')).to_have_text('reject')
    expect(page.locator('#decision')).to_have_text('not decided')
    page.click('#boxes .away')
    expect(page.locator('#verdict')).to_have_text('reject')  # what the detector said stays said
    decide(page, lambda: page.keyboard.press('a'))
    expect(page.locator('#left')).to_have_text('2 to decide')
    expect(page.locator('#name')).to_contain_text('day/2.png')
    expect(page.locator('#message')).to_contain_text('accept kept in')
    page.keyboard.press('p')
    expect(page.locator('#decision')).to_have_text('accept')
    expect(page.locator('#verdict')).to_have_text('reject')


def test_a_server_that_is_away_is_said_and_the_decision_stays_open(page):
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    page.evaluate("""() => {
        const soon = fetch;
        window.fetch = (path, ...rest) =>
          path.endsWith('/decision') ? Promise.reject(new TypeError('gone')) : soon(path, ...rest);
      }""")
    decide(page, lambda: page.keyboard.press('r'))
    expect(page.locator('#message')).to_contain_text('is not decided: the server does not answer')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    expect(page.locator('#decision')).to_have_text('not decided')
    expect(page.locator('#left')).to_have_text('3 to decide')


def test_a_decision_is_taken_back_and_put_back(page, tmp_path):
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    decide(page, lambda: page.keyboard.press('r'))
    expect(page.locator('#message')).to_contain_text('reject kept in')
    expect(page.locator('#left')).to_have_text('2 to decide')
    page.keyboard.press('Control+z')
    expect(page.locator('#message')).to_contain_text('taken back: decision of day/1.png')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    expect(page.locator('#decision')).to_have_text('not decided')
    expect(page.locator('#left')).to_have_text('3 to decide')
    assert corrections(tmp_path)['images'] == []
    page.keyboard.press('Control+y')
    expect(page.locator('#decision')).to_have_text('reject')
    expect(page.locator('#left')).to_have_text('2 to decide')
    assert [image['verdict'] for image in corrections(tmp_path)['images']] == ['reject']
    record = (tmp_path / 'out' / 'decisions.jsonl').read_text().splitlines()
    assert [json.loads(line)['verdict'] for line in record] == ['reject', 'withdraw', 'reject']


def test_nothing_tells_a_blind_reader_what_the_detector_found(page):
    page.check('#blind')
    open_day(page)
    names = page.locator('#items .name')
    expect(names).to_have_text(['day/0.png', 'day/1.png', 'day/2.png'])  # not the worst first
    assert page.locator('#items .word').all_text_contents() == ['–'] * 3
    page.uncheck('#blind')
    expect(names).to_have_text(['day/1.png', 'day/2.png', 'day/0.png'])
    expect(page.locator('#items .word').first).to_have_text('1.00')


@pytest.mark.parametrize('drawn', [False, True])
def test_what_somebody_decided_meanwhile_is_said_and_can_be_decided_on(page, session, drawn):
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    found = [dict(box=b['box'], label=b['label']) for b in session.items[2].boxes]
    session.decide(2, 'reject', found, by=dict(inspector='ben'))
    if drawn:
        draw_box(page)
    decide(page, lambda: page.keyboard.press('r'))
    expect(page.locator('#message')).to_contain_text('ben decided on this radiograph meanwhile (reject')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    expect(page.locator('#boxes tr')).to_have_count(1 + drawn)
    decide(page, lambda: page.keyboard.press('r'))
    expect(page.locator('#message')).to_contain_text('reject kept in')
    assert session.items[2].revision == 2
