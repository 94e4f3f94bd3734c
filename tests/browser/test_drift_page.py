"""The drift charts on the inspection page."""

from contextlib import closing

import cv2
import numpy as np
from helpers.exported import export_to, spot
from helpers.inspect_page import watched
from helpers.serving import serving
from playwright.sync_api import expect

from projects.line.page.server import Session, build
from projects.line.runtime import Inspector

DRIFT = "import('/static/drift.js').then(drift => drift.drawDrift())"


def test_the_charts_are_drawn_and_requalify_appears(browser, tmp_path):
    quantiles = np.linspace(99, 101, 41).tolist()
    result = dict(count=40, mean=100.0, spread=0.6, quantiles=quantiles)
    none = dict(count=0, mean=None, spread=None, quantiles=[])
    sound, critical = (
        dict(count=40, accepted=result, rejected=none),
        dict(count=0, accepted=none, rejected=none),
    )
    reference = dict(
        radiographs=40, units=40, gray=dict(p50=result), risk=dict(sound=sound, critical=critical)
    )
    exported = export_to(tmp_path / 'exported', reference=reference)
    with (
        closing(Session(Inspector(exported), tmp_path / 'out')) as session,
        serving(build(session)) as address,
        watched(browser, address) as page,
    ):
        expect(page.locator('#drift-status')).to_have_text('Drift: as at the proof')
        expect(page.locator('#drift-charts')).to_contain_text('median gray level: no radiograph yet')
        for k in range(30):
            path = tmp_path / f'{k}.png'
            cv2.imwrite(str(path), np.clip(spot(20, 30 + k, 120) + 30, 0, 255).astype(np.uint8))
            session.inspect(session.add(path.name, path))
        page.evaluate(DRIFT)
        status = page.locator('#drift-status')
        expect(status).to_contain_text('Requalify the detector: median gray level high')
        expect(page.locator('#drift-charts')).to_contain_text('▲ median gray level: high since')
        expect(page.locator('#requalify')).to_have_text('▲ Requalify the detector: see Drift')
        points = page.locator('#drift-charts polyline').first.get_attribute('points').split()
        heights = [float(point.split(',')[1]) for point in points]
        assert heights == sorted(heights, reverse=True) and heights[0] > heights[-1]  # it rises
        assert 'limits -0.' in page.locator('#drift-charts svg').first.get_attribute('aria-label')
