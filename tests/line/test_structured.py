"""DICOM structured reports: verdict, boxes and scores as pydicom reads them back; who has none."""

import sys
import threading

import cv2
import numpy as np
import pydicom
import pytest
from helpers.exported import export_to, spot
from helpers.radiograph_files import dicom
from helpers.serving import wait_for

from projects.line.runtime import Inspector
from projects.line.runtime.results import as_result
from projects.line.runtime.structured import write_report
from projects.line.runtime.watch import Watch
from tools import infer


def radiograph(path, level=255, **tags):
    """A DICOM file of a spot, with the ids that an archive needs."""
    ids = dict(StudyInstanceUID='1.2.3.4', SeriesInstanceUID='1.2.3.4.5', PatientID='P0042', Modality='DX')
    path.write_bytes(dicom(spot(20, 30, level), **(ids | tags)))
    return path


def items(sequence):
    """All content items of a report, flat."""
    for item in sequence:
        yield item
        yield from items(item.get('ContentSequence', []))


def named(report, kind):
    """Content items of a report, by the meaning of their name."""
    return [item for item in items(report.ContentSequence) if item.ValueType == kind]


@pytest.fixture
def exported(tmp_path):
    return export_to(tmp_path / 'exported')


def test_a_report_says_what_was_found(exported, tmp_path):
    archive, out = tmp_path / 'archive', tmp_path / 'found'
    archive.mkdir()
    source = pydicom.dcmread(radiograph(archive / 'bad.dcm'))
    radiograph(archive / 'good.dcm', 120)
    cv2.imwrite(str(archive / 'plain.png'), spot(20, 30))
    assert infer.main([str(exported), str(archive), '--out', str(out), '--sr', '--overlays', 'none']) == 0
    reports = out / 'shard-1-of-1' / 'reports'
    assert sorted(path.name for path in reports.iterdir()) == ['bad.dcm.sr.dcm', 'good.dcm.sr.dcm']
    result = pydicom.dcmread(reports / 'bad.dcm.sr.dcm')
    assert result.Modality == 'SR' and result.file_meta.MediaStorageSOPInstanceUID == result.SOPInstanceUID
    assert (result.PatientID, result.StudyInstanceUID) == ('P0042', '1.2.3.4')
    (referenced,) = result.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    (image,) = referenced.ReferencedSOPSequence
    assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
    values = {i.ConceptNameCodeSequence[0].CodeValue: i for i in named(result, 'NUM')}
    assert float(values['risk'].MeasuredValueSequence[0].NumericValue) == 1
    assert float(values['score'].MeasuredValueSequence[0].NumericValue) == 1
    assert float(values['threshold'].MeasuredValueSequence[0].NumericValue) == 0.9
    (region,) = named(result, 'SCOORD')
    corners = np.reshape(region.GraphicData, (-1, 2))
    assert [*corners.min(0), *corners.max(0)] == [16, 26, 24, 34]
    codes = [i.ConceptCodeSequence[0].CodeValue for i in named(result, 'CODE')]
    assert 'reject' in codes and 'critical' in codes
    good = [
        i.ConceptCodeSequence[0].CodeValue
        for i in named(pydicom.dcmread(reports / 'good.dcm.sr.dcm'), 'CODE')
    ]
    assert 'accept' in good and 'reject' not in good


def test_the_watched_folder_writes_reports_before_results(exported, tmp_path):
    root, stop, results = tmp_path / 'arriving', threading.Event(), []
    root.mkdir()
    radiograph(root / 'a.dcm')
    (root / 'torn.dcm').write_bytes(b'')
    watch = Watch(Inspector(exported), root, tmp_path / 'out', 0, report=write_report)
    thread = threading.Thread(target=watch.run, args=(stop, 0.01, results.append))
    thread.start()
    wait_for(lambda: len(results) == 2)
    stop.set()
    thread.join(60)
    assert {result['name']: result['report'] for result in results} == {
        'a.dcm': 'written',
        'torn.dcm': 'none: not readable',
    }
    report = pydicom.dcmread(tmp_path / 'out' / 'results' / 'a.dcm.sr.dcm')
    again = tmp_path / 'again.dcm'
    result = next(result for result in results if result['report'] == 'written')
    assert write_report(root / 'a.dcm', result, again) == 'written'
    assert pydicom.dcmread(again).SOPInstanceUID == report.SOPInstanceUID  # an archive takes it once


def test_dicom_without_the_ids_of_an_archive_is_named(exported, tmp_path, capsys):
    path = radiograph(tmp_path / 'a.dcm', StudyInstanceUID='')
    assert infer.main([str(exported), str(path), '--out', str(tmp_path / 'found'), '--sr']) == 0
    errors = capsys.readouterr().err
    assert 'a.dcm: structured report none: lacks StudyInstanceUID, which a report refers to' in errors
    assert not list((tmp_path / 'found').rglob('*.sr.dcm'))


def test_attributes_of_another_type_stop_nothing(exported, tmp_path):
    path = radiograph(tmp_path / 'a.dcm', Modality='SR')  # no image's
    inspection = write_report(
        path, as_result('a.dcm', 'ab', Inspector(exported)(path), Inspector(exported)), path
    )
    assert inspection.startswith('none: ') and 'SR' in inspection


def test_without_highdicom_the_remedy_is_said(exported, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'highdicom', None)
    path = radiograph(tmp_path / 'a.dcm')
    assert infer.main([str(exported), str(path), '--out', str(tmp_path / 'found'), '--sr']) == 1
    assert "--sr: expected highdicom; install it: pip install -c requirements.txt 'mmxray[sr]'" in (
        capsys.readouterr().err
    )
