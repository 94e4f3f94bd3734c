"""No violation that axe-core finds on the two pages, inspection and report: dark, light, wide and narrow."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from helpers.drawn_runs import draw_study
from helpers.inspect_page import open_day, watched
from helpers.serving import serving
from playwright.sync_api import expect

from projects.line.page.server import build
from projects.report.measured import Settings
from projects.report.page import write_report
from projects.report.runs import read_runs


def violations(page):
    """What axe finds, a line for each element: rule, element and reason."""
    found = Axe().run(page).response['violations']
    return [
        f'{rule["id"]}: {" ".join(map(str, node["target"]))}: {node["failureSummary"]}'
        for rule in found
        for node in rule['nodes']
    ]


@pytest.mark.parametrize('width', [390, 1280])
@pytest.mark.parametrize('theme', ['dark', 'light'])
def test_the_inspection_page(browser, session, width, theme):
    size = dict(width=width, height=800)
    with serving(build(session)) as address, watched(browser, address, viewport=size) as page:
        page.select_option('#theme', theme)
        assert violations(page) == []  # before anything is open
        open_day(page)
        page.click('#items button >> nth=0')
        expect(page.locator('#verdict')).to_have_text('reject')
        assert violations(page) == []
        page.evaluate("document.getElementById('help').showModal()")
        assert violations(page) == []
        page.evaluate("document.getElementById('help').append(document.createElement('button'))")
        assert [line.partition(':')[0] for line in violations(page)] == ['button-name']  # it does look


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    """A small report with pictures."""
    root = tmp_path_factory.mktemp('axe')
    runs, left_out = read_runs(draw_study(root, {'scratch': 0.3, 'simsiam': 0.6}, parts=20))
    assert left_out == []
    write_report(root / 'out', runs, [], Settings(resamples=5), 20, 'python tools/report.py')
    return root / 'out'


@pytest.mark.parametrize('width', [390, 1280])
@pytest.mark.parametrize('scheme', ['dark', 'light'])
def test_the_report(browser, report, width, scheme):
    context = browser.new_context(viewport=dict(width=width, height=900), color_scheme=scheme)
    page = context.new_page()
    page.goto((report / 'index.html').as_uri())
    assert violations(page) == []
    page.click('button.item >> nth=0')
    expect(page.locator('#large')).to_be_visible()
    assert violations(page) == []
    context.close()
