"""The link to the detector that the server began with is moved: nothing is swapped, and it is said."""

from contextlib import closing

import cv2
import pytest
from helpers.exported import export_to, spot
from helpers.serving import caller, serving

from projects.line.page.served import Served
from projects.line.page.server import Session, build
from projects.line.runtime import Inspector


@pytest.fixture
def link(tmp_path):
    """A link to the first of two exported folders, and a function that moves it."""
    for name, threshold in (('one', 0.9), ('two', 0.43)):
        export_to(tmp_path / name, threshold=threshold)
    path = tmp_path / 'detector'
    path.symlink_to(tmp_path / 'one')

    def lead(name):
        (tmp_path / 'new').symlink_to(tmp_path / name)
        (tmp_path / 'new').rename(path)

    return path, lead


def test_a_server_whose_link_was_moved_says_so_and_goes_on(link, tmp_path):
    path, lead = link
    inspector, second = Inspector(path, cache=False), Inspector(tmp_path / 'two', cache=False)
    with closing(Session(inspector, tmp_path / 'out')) as session, serving(build(session)) as address:
        call = caller(address)
        assert call('GET', '/health/ready')[0].status == 200
        assert call('GET', '/api/drift')[1]['replaced'] == ''
        lead('two')
        answer, body = call('GET', '/health/ready')
        assert answer.status == 503
        assert f'now leads to the detector {second.digest[:12]}; this server continues' in body['status']
        assert call('GET', '/health/live')[0].status == 200
        for place in ('/api/drift', '/api/last'):
            told = f'with {inspector.digest[:12]} until it is started again'
            assert told in call('GET', place)[1]['replaced']
        assert b'mmxray_detector_replaced 1.0' in call('GET', '/metrics')[1]
        content = cv2.imencode('.png', spot(20, 30, 120))[1].tobytes()
        program = {'x-inspect': '', 'content-type': 'application/octet-stream'}
        (result,) = call('POST', '/v1/inspect?name=a.png', content, **program)[1]['results']
        assert (result['verdict'], result['folder']) == ('accept', inspector.digest)  # not swapped
        lead('one')
        assert call('GET', '/health/ready')[0].status == 200
        assert b'mmxray_detector_replaced 0.0' in call('GET', '/metrics')[1]


def test_a_link_to_nothing_and_a_folder_that_was_written_over_are_noticed(link, tmp_path):
    path, lead = link
    served = Served(Inspector(path, cache=False))
    assert served.replaced() == ''
    lead('none')
    assert 'now leads to no exported detector; this server continues' in served.replaced()
    lead('one')
    assert served.replaced() == ''
    (tmp_path / 'one' / 'metadata.json').write_bytes((tmp_path / 'two' / 'metadata.json').read_bytes())
    assert Inspector(tmp_path / 'two', cache=False).digest[:12] in served.replaced()


def test_a_decision_on_what_another_detector_found_is_refused(link, tmp_path):
    path, _ = link
    with (
        closing(Session(Inspector(path, cache=False), tmp_path / 'out')) as session,
        serving(build(session)) as address,
    ):
        call = caller(address)
        cv2.imwrite(str(tmp_path / 'a.png'), spot(20, 30, 120))
        session.inspect(session.add('a.png', tmp_path / 'a.png'))
        body = dict(verdict='accept', boxes=[])
        answer, content = call('POST', '/api/images/1/decision', body | dict(folder='0' * 64))
        assert answer.status == 409 and 'reload the page' in content['detail']
        own = dict(folder=session.inspector.digest)
        assert call('POST', '/api/images/1/decision', body | own)[0].status == 200
