"""A real Chromium, and the inspection page in it."""

import shutil
from contextlib import closing

import cv2
import numpy as np
import pytest
from helpers.exported import export_to, spot
from helpers.inspect_page import watched
from helpers.serving import serving
from playwright.sync_api import sync_playwright

from projects.line.page.server import Session, build
from projects.line.runtime import Inspector
from projects.measures.bounds import rate

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
CURVE = [
    dict(
        threshold=t / 20,
        escape=t / 20,
        false_reject=1 - t / 20,
        escape_words=str(rate(t, 20)),
        false_reject_words=str(rate(20 - t, 20)),
    )
    for t in range(1, 21)
]


@pytest.fixture(scope='module')
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu']
        )
        yield chromium
        chromium.close()


@pytest.fixture
def session(tmp_path, request):
    """A sitting with an archive of three radiographs.

    With a parameter, the threshold lies that much above the score of day/2.png.
    """
    archive = tmp_path / 'archive'
    (archive / 'day').mkdir(parents=True)
    for k, level in enumerate((180, 255, 230)):
        cv2.imwrite(str(archive / 'day' / f'{k}.png'), spot(20, 30, level))
    cv2.imwrite(str(tmp_path / 'deep.png'), spot(20, 30, 65535, dtype=np.uint16))
    changes = dict(curve=CURVE, depths=['8-bit unsigned', '16-bit unsigned'])
    changes['origin'] = dict(part_rule='day/[0-9]')
    if hasattr(request, 'param'):
        score = Inspector(export_to(tmp_path / 'first'))(archive / 'day' / '2.png').risk
        changes['threshold'] = score + request.param
    exported = export_to(tmp_path / 'exported', **changes)
    with closing(Session(Inspector(exported), tmp_path / 'out', archive)) as opened:
        yield opened


@pytest.fixture
def page(browser, session):
    """The page of a running server; fails on anything in its console."""
    with serving(build(session)) as address, watched(browser, address) as opened:
        yield opened
