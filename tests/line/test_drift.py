"""Drift charts: false calls as often as stated, shifts found, the state over restarts; service and watch."""

import json
import math
import shutil
import threading
from contextlib import closing

import cv2
import numpy as np
import pytest
from helpers.exported import export_to, spot
from helpers.serving import caller, serving, wait_for

from projects.line.export.reference import reference_of
from projects.line.page.server import Session, build
from projects.line.runtime import Inspector, charts, folder
from projects.line.runtime.archive import ArchiveError
from projects.line.runtime.drift import GRAYS, Drift, Line, charts_of
from projects.line.runtime.watch import Watch
from projects.radiograph.gray_levels import measure
from tools import infer


def truth_of(critical, parts=True):
    """Validation radiographs, the first so many of them with a critical defect."""
    images = [dict(id=k, part=str(k) if parts else None) for k in range(len(critical))]
    annotations = [dict(image_id=k, category_id=1) for k, case in enumerate(critical) if case]
    categories = [dict(id=1, name='critical'), dict(id=2, name='minor')]
    return dict(images=images, annotations=annotations, categories=categories)


def levels_of(value):
    return dict.fromkeys(GRAYS, float(value))


def described(exported, grays, risks, critical, parts=True):
    found = [(np.zeros((1, 4)), np.array([risk]), np.array([0])) for risk in risks]
    return reference_of(exported, truth_of(critical, parts), [levels_of(gray) for gray in grays], found)


@pytest.fixture
def inspector(tmp_path):
    """A detector whose proof has 60 radiographs of a gray level of 100 +- 3, 10 of them critical."""
    rng = np.random.default_rng(0)
    plain = folder.read(export_to(tmp_path / 'plain'))
    critical = [k < 10 for k in range(60)]
    risks = [0.95 if case else 0.95 if k < 13 else rng.uniform(0.2, 0.6) for k, case in enumerate(critical)]
    reference = described(plain, rng.normal(100, 3, 60), risks, critical)
    return Inspector(export_to(tmp_path / 'exported', reference=reference, origin=dict(part_rule='[A-Z]+')))


def test_run_lengths_are_those_of_lucas_and_saccucci():
    """Their table of normal values: L of a two-sided run length of 500, here one side of it."""
    scores = np.array([charts.NormalDist().inv_cdf((k + 0.5) / 401) for k in range(401)])
    for weight, limit in ((0.05, 2.615), (0.1, 2.814), (0.25, 2.998)):
        sigma = math.sqrt(weight / (2 - weight))
        length = charts.run_length(scores, [1 / 401] * 401, weight, 0, limit * sigma)
        assert length == pytest.approx(1000, rel=0.08)


DRAWS = {
    'normal': lambda rng, shape: rng.normal(100, 3, shape),
    'skewed': lambda rng, shape: rng.exponential(1, shape),
    'two kinds': lambda rng, shape: np.where(rng.random(shape) < 0.3, 50, 100) + rng.normal(0, 1, shape),
    'tied': lambda rng, shape: np.maximum(rng.normal(-1, 1, shape), 0),
}


@pytest.mark.parametrize('draw', DRAWS.values(), ids=DRAWS)
def test_a_chart_of_values_calls_as_seldom_as_stated(draw):
    """300 lines, each with a proof of its own, of 2,000 radiographs: expected at most 6 false calls."""
    rng, scores = np.random.default_rng(1), []
    for _ in range(300):
        chart = chart_of(draw(rng, 80))
        scores.append(np.interp(draw(rng, 2000), chart.values, chart.scores))
    assert (first_calls(chart, np.array(scores)) < 2000).sum() <= 12  # a Poisson count of mean 6: p = 0.01


def chart_of(proof):
    levels = (np.arange(charts.LEVELS) + 0.5) / charts.LEVELS
    quantiles = np.quantile(proof, levels, method='hazen').tolist()
    return charts.value_chart('x', 0.05, quantiles, [1.0] * len(quantiles), len(proof))


def first_calls(chart, scores):
    """When a chart first calls on each of many lines (lines, radiographs); their number where it does not."""
    average, found = np.full(len(scores), chart.centre), np.full(len(scores), scores.shape[1])
    low = -np.inf if chart.lower is None else chart.lower
    high = np.inf if chart.upper is None else chart.upper
    for k, column in enumerate(scores.T):
        average = chart.next(average, column)
        calling = (average < low) | (average > high)
        found[calling] = np.minimum(found[calling], k)
    return found


def test_a_chart_of_shares_calls_as_seldom_as_stated():
    rng = np.random.default_rng(2)
    chart = charts.share_chart('rejects', 0.01, 0.05, 0.03, 0.08)
    for share in (0.03, 0.05, 0.08):  # whatever the proof does not exclude
        calls = first_calls(chart, (rng.random((200, 2000)) < share).astype(float)) < 2000
        assert calls.sum() <= 10  # expected at most 4


@pytest.mark.parametrize(('shift', 'within'), [(1, 60), (-1, 60), (3, 25)])
def test_a_shifted_mean_is_found(shift, within):
    rng = np.random.default_rng(3)
    chart = chart_of(rng.normal(0, 1, 120))
    shifted = np.interp(rng.normal(shift, 1, (50, 3000)), chart.values, chart.scores)
    found = first_calls(chart, shifted)
    assert np.median(found) <= within
    assert found.max() < 3000


def test_more_rejects_and_none_at_all_are_found():
    rng = np.random.default_rng(4)
    chart = charts.share_chart('rejects', 0.01, 0.05, 0.03, 0.08)
    assert first_calls(chart, (rng.random((50, 500)) < 0.25).astype(float)).max() < 250
    assert first_calls(chart, np.zeros((1, 2000))) < 600  # such as of a detector that sees nothing any more


def test_the_reference_says_what_the_proof_found(tmp_path):
    exported = folder.read(export_to(tmp_path / 'exported'))
    critical = [True] * 4 + [False] * 16
    risks = [0.95] * 3 + [0.1] + [0.92] * 2 + [0.3] * 14
    result = described(exported, range(20), risks, critical)
    assert (result['radiographs'], result['units']) == (20, 20)
    assert result['gray']['p50']['mean'] == 9.5
    assert result['gray']['p50']['spread'] == pytest.approx(np.std(range(20), ddof=1), abs=1e-5)
    counts = {
        k: (g['count'], g['accepted']['count'], g['rejected']['count']) for k, g in result['risk'].items()
    }
    assert counts == dict(sound=(16, 14, 2), critical=(4, 1, 3))
    assert len(json.dumps(result)) < 6000
    assert described(exported, range(9), [0.1] * 9, [False] * 9) == {}
    assert described(exported, range(20), risks, critical, parts=False)['units'] == 20


def test_the_share_of_critical_radiographs_moves_the_expected_rejects(inspector):
    val, notes = charts_of(inspector)
    assert set(val) == {'p50', 'contrast', 'noise', 'accepted', 'rejected', 'rejects'} and not notes
    assert val['rejects'].centre == pytest.approx(13 / 60)
    line, _ = charts_of(inspector, 0.01)
    assert line['rejects'].centre == pytest.approx(0.01 + 0.99 * 3 / 50)
    assert 'rejected' not in line  # of three false rejects nothing can be said
    inspector.threshold = 0.5
    charted, notes = charts_of(inspector)
    assert set(charted) == set(GRAYS) and "the threshold is not the folder's" in notes[0]


def said_of(inspector, gray, level=120):
    """An inspection of a radiograph with other gray levels than it has."""
    inspection = inspector(spot(20, 30, level))
    inspection.levels = levels_of(gray)
    return inspection


def test_a_call_stays_over_restarts_until_the_detector_is_qualified_again(inspector, tmp_path):
    drift = Drift(inspector, tmp_path)
    rng = np.random.default_rng(5)
    for k in range(40):
        assert drift.update(f'{k}.png', f'a{k:011}', said_of(inspector, rng.normal(100, 3))) == []
    calls = [drift.update(f'{k}.png', f'b{k:011}', said_of(inspector, 112)) for k in range(40)]
    assert sorted(name for names in calls for name in names) == sorted(GRAYS)
    before = drift.told()
    drift.close()
    again = Drift(inspector, tmp_path)
    assert again.told() == before
    assert again.requalify[0].startswith('median gray level high since 2')
    assert again.update('39.png', f'b{39:011}', said_of(inspector, 112)) == []
    assert again.told() == before  # the same radiograph counts once
    for k in range(200):
        again.update(f'{k}.png', f'c{k:011}', said_of(inspector, rng.normal(100, 3)))
    assert again.requalify[:3] == before['requalify']  # though the averages are back
    assert again.requalify[3:][0].startswith('share rejected low')  # of 280 radiographs none was rejected
    again.close()
    new = Drift(inspector, tmp_path, Line(requalified=True))
    assert not new.requalify and not new.standings['p50'].count
    assert len(list(tmp_path.glob('drift-*.json'))) == 1


def test_the_state_of_another_detector_is_set_aside_and_a_damaged_one_refused(inspector, tmp_path):
    drift = Drift(inspector, tmp_path)
    drift.update('1.png', 'a' * 64, said_of(inspector, 100))
    drift.close()
    other = Inspector(export_to(tmp_path / 'other', reference=inspector.exported.reference, iou=0.4))
    assert Drift(other, tmp_path).standings['p50'].count == 0
    assert len(list(tmp_path.glob('drift-*.json'))) == 1
    shutil.copy(next(tmp_path.glob('drift-*.json')), tmp_path / 'drift.json')
    content = json.loads((tmp_path / 'drift.json').read_text())
    assert Drift(inspector, tmp_path).standings['p50'].count == 1
    for wrong in (
        dict(average='low'),
        dict(average=float('nan')),
        dict(count=None),
        dict(history=[None]),
        dict(called=dict(side='low')),
        dict(called=[1]),
        dict(colour='red'),
    ):
        charts = content['charts'] | dict(p50=content['charts']['p50'] | wrong)
        (tmp_path / 'drift.json').write_text(json.dumps(content | dict(charts=charts)))
        with pytest.raises(ArchiveError, match='damaged file; take it away'):
            Drift(inspector, tmp_path)
    (tmp_path / 'drift.json').write_text('{"torn')
    with pytest.raises(ArchiveError, match='damaged file; take it away'):
        Drift(inspector, tmp_path)


def test_false_calls_on_a_reference_part_have_a_chart_of_their_own(inspector, tmp_path):
    drift = Drift(inspector, tmp_path, Line(reference_part='REF'))
    calls = []
    for k in range(12):
        calls += drift.update(f'REF_{k}.png', f'a{k:011}', said_of(inspector, 100, 255))
    assert calls == ['reference_part']
    assert drift.standings['p50'].count == drift.standings['rejects'].count == 0
    bare = Inspector(export_to(tmp_path / 'bare'))
    with pytest.raises(ArchiveError, match='no rule that finds parts in names'):
        Drift(bare, tmp_path / 'x', Line(reference_part='REF'))


def test_the_service_tells_of_drift(inspector, tmp_path):
    with closing(Session(inspector, tmp_path / 'out')) as session, serving(build(session)) as address:
        call = caller(address)
        program = {'x-inspect': '', 'content-type': 'application/octet-stream'}
        for k in range(60):  # the spots' own gray levels: contrast and noise are not those of the proof
            content = cv2.imencode('.png', spot(k, 30, 120))[1].tobytes()
            body = call('POST', f'/v1/inspect?name={k}.png', content, **program)[1]['results'][0]
        assert body['verdict'] == 'accept'
        assert any(words.startswith('contrast low since') for words in body['requalify'])
        text = call('GET', '/metrics')[1].decode()
        assert 'mmxray_requalify 1.0' in text
        assert 'mmxray_drift_count{chart="p50"} 60.0' in text
        assert 'mmxray_drift_limit{chart="noise",side="high"}' in text
        told = call('GET', '/api/drift')[1]
        chart = next(c for c in told['charts'] if c['name'] == 'contrast')
        assert (chart['count'], chart['called']['side'], len(chart['history'])) == (60, 'low', 60)
        assert chart['average'] < chart['lower']


def test_the_watched_folder_tells_of_drift(inspector, tmp_path, capsys):
    root, stop = tmp_path / 'arriving', threading.Event()
    root.mkdir()
    for k in range(50):
        cv2.imwrite(str(root / f'{k}.png'), spot(k, 30, 120))
    watch, results = Watch(inspector, root, tmp_path / 'out', 0), []
    thread = threading.Thread(target=watch.run, args=(stop, 0.01, results.append))
    thread.start()
    wait_for(lambda: len(results) == 50)
    stop.set()
    thread.join(60)
    assert results[0]['requalify'] == [] and len(results[-1]['requalify']) >= 2
    state = json.loads((tmp_path / 'out' / 'drift.json').read_text())
    assert state['charts']['p50']['count'] == 50
    assert state['requalify'] == results[-1]['requalify']


def test_wrong_use_is_said(tmp_path, capsys):
    place = [str(tmp_path / 'exported'), str(tmp_path / 'in'), '--out', str(tmp_path / 'out')]
    with pytest.raises(SystemExit):
        infer.main([*place, '--requalified'])
    assert 'add --watch' in capsys.readouterr().err


def test_a_folder_of_an_earlier_format_says_so(tmp_path):
    place = export_to(tmp_path / 'exported')
    content = json.loads((place / 'metadata.json').read_text()) | dict(format=3)
    (place / 'metadata.json').write_text(json.dumps(content))
    with pytest.raises(folder.FolderError, match='expected export format 4, found 3, .* export again'):
        folder.read(place)


def test_gray_statistics_have_charts_by_the_names_that_are_measured():
    assert set(GRAYS) <= set(measure(spot(20, 30)))
