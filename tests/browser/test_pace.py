"""The inspection page's pace: the next radiograph is there, no decision holds up, labels stay apart."""

from urllib.parse import parse_qs, urlsplit

from helpers.inspect_page import corrections, decide, open_day
from helpers.serving import wait_for
from playwright.sync_api import expect

MANY = """async () => {
  const {page, changed} = await import('/static/state.js');
  page.current.boxes = Array.from({length: 24}, (_, k) =>
    ({box: [20 + k % 5, 20 + k % 7, 34 + k % 5, 34 + k % 7], label: k % 2, score: .95}));
  changed();
  return document.getElementById('view').labels;
}"""


def test_the_next_radiograph_was_fetched_before_it_is_asked_for(page):
    asked = []
    page.on('request', lambda request: asked.append(urlsplit(request.url).path))
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    for _ in range(100):
        if '/api/images/3/pixels' in asked:
            break
        page.wait_for_timeout(100)
    assert asked.count('/api/images/3/pixels') == 1
    page.keyboard.press('n')
    expect(page.locator('#name')).to_contain_text('day/2.png')
    assert asked.count('/api/images/3/pixels') == 1


def test_the_next_radiograph_is_shown_while_a_decision_is_on_its_way(page, tmp_path):
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    page.evaluate("""() => {
        const soon = fetch;
        window.fetch = async (path, ...rest) => {
          if (path.endsWith('/decision')) await new Promise(done => { window.go = done; });
          return soon(path, ...rest);
        };
      }""")
    decide(page, lambda: page.keyboard.press('r'))
    expect(page.locator('#name')).to_contain_text('day/2.png')
    assert not (tmp_path / 'out' / 'corrections.json').exists()
    page.evaluate('go()')
    expect(page.locator('#message')).to_contain_text('reject kept in')
    assert len(corrections(tmp_path)['images']) == 1


def test_a_radiograph_opened_while_its_decision_is_on_its_way_shows_it(page):
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    page.evaluate("""() => {
        const soon = fetch, held = name => new Promise(done => { window[name] = done; });
        window.fetch = async (path, ...rest) => {
          if (path.endsWith('/decision')) await held('decided');
          const answer = await soon(path, ...rest);
          if (path === '/api/images/2' && !window.opened) await held('opened');
          return answer;
        };
      }""")
    decide(page, lambda: page.keyboard.press('r'))
    expect(page.locator('#name')).to_contain_text('day/2.png')
    page.keyboard.press('p')
    wait_for(lambda: page.evaluate('Boolean(window.opened)'))
    page.evaluate('decided()')
    expect(page.locator('#message')).to_contain_text('reject kept in')
    page.evaluate('opened()')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    expect(page.locator('#decision')).to_have_text('reject')


def test_the_list_comes_by_difference(page):
    answers = []
    page.on('response', lambda answer: '/api/state' in answer.url and answers.append(answer))
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    decide(page, lambda: page.keyboard.press('r'))
    expect(page.locator('#message')).to_contain_text('reject kept in')
    with page.expect_response('**/api/state?*') as last:
        page.keyboard.press('n')
    assert int(parse_qs(urlsplit(last.value.url).query)['since'][0]) > 0
    assert 'classes' not in last.value.json()
    assert {item['id'] for item in last.value.json()['items']} <= {2}  # that which was decided on


def test_labels_do_not_overlap(page):
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    labels = page.evaluate(MANY)
    assert len(labels) > 12
    for k, (x1, y1, x2, y2) in enumerate(labels):
        assert all(x2 <= a or x1 >= c or y2 <= b or y1 >= d for a, b, c, d in labels[:k])


def test_a_label_lies_on_no_other_box_where_there_is_room(page):
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    label, box = page.evaluate("""async () => {
      const {page, changed} = await import('/static/state.js'), {viewer} = await import('/static/main.js');
      // The place above the second box is that of the first.
      page.current.boxes = [[20, 26], [27.5, 34]].map(([above, below], label) =>
        ({box: [20, above, 34, below], label, score: .95}));
      changed();
      const {scale, left, top} = viewer.view, [x1, y1, x2, y2] = page.current.boxes[0].box;
      return [document.getElementById('view').labels[1],
        [x1 * scale + left, y1 * scale + top, x2 * scale + left, y2 * scale + top]];
    }""")
    assert label[1] >= box[3] or label[3] <= box[1] or label[0] >= box[2] or label[2] <= box[0]


def test_words_are_large_and_the_theme_is_kept(page):
    open_day(page)
    page.click('#next')
    expect(page.locator('#name')).to_contain_text('day/1.png')
    small = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter(e => e.children.length === 0 &&
          e.textContent.trim() && e.getBoundingClientRect().width &&
          parseFloat(getComputedStyle(e).fontSize) * (e.getScreenCTM ? e.getScreenCTM().a : 1) < 13)
          .map(e => e.textContent)"""
    )
    assert small == []
    for theme in ('light', 'dark'):
        page.select_option('#theme', theme)
        page.reload()
        page.wait_for_selector('html[data-ready]', state='attached')
        assert page.evaluate('getComputedStyle(document.documentElement).colorScheme') == theme
