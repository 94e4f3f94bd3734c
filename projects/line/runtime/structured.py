"""A verdict as a DICOM structured report beside its radiograph, for DICOM and DICONDE archives.

A report follows TID 1500, written by highdicom (MIT, the extra `sr`): the verdict and the risk of the
radiograph, and each finding with its box and score. Concepts without a DICOM code use the private scheme
99MMXRAY.
"""

import hashlib
from pathlib import Path
from typing import Any

from projects import __version__
from projects.radiograph.files import draft_of

from .archive import ArchiveError

SCHEME = '99MMXRAY'
SERIES = 9001
_NEEDED = ('SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID', 'Modality')
# Type 2 attributes, which may be empty; many files leave them out.
_MAY_BE_EMPTY = (
    *('PatientID', 'PatientName', 'PatientBirthDate', 'PatientSex', 'AccessionNumber'),
    *('StudyID', 'StudyDate', 'StudyTime', 'ReferringPhysicianName'),
)


def check_available() -> None:
    """Refuse to start without highdicom.

    Raises:
        ArchiveError: highdicom is not installed.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise ArchiveError(
            "--sr: expected highdicom; install it: pip install -c requirements.txt 'mmxray[sr]'"
        ) from None


def write_report(path: Path, result: dict[str, Any], target: Path) -> str:
    """Write the structured report of an inspected radiograph, whole or not at all.

    A radiograph without a report does not stop the others: its verdict is in the result.

    Args:
        path: File of the radiograph.
        result: Its result by `results.as_result`.
        target: File of the report.

    Returns:
        'written', or why there is no report: the file is not DICOM, could not be read, or lacks an attribute
        that a report refers to.

    Raises:
        OSError: The report cannot be written.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    if result['verdict'] == 'unreadable':
        return 'none: not readable'
    try:
        source = pydicom.dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        return 'none: no DICOM file'
    missing = [name for name in _NEEDED if not source.get(name)]
    if missing:
        return f'none: lacks {", ".join(missing)}, which a report refers to; have the archive write it'
    for name in _MAY_BE_EMPTY:
        if name not in source:
            setattr(source, name, None)
    try:
        report = report_of(source, result)
    except (
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
    ) as error:  # odd attributes
        return f'none: {" ".join(str(error).split())[:200]}'
    with draft_of(target, durable=True) as draft:
        report.save_as(draft, enforce_file_format=True)
    return 'written'


def report_of(source: Any, result: dict[str, Any]) -> Any:
    """Return the report of a radiograph as a dataset; file, detector and threshold determine its UIDs.

    Args:
        source: Dataset of the radiograph.
        result: Its result by `results.as_result`.
    """
    from highdicom import sr
    from pydicom.sr.codedict import codes

    ratio = codes.UCUM.NoUnits
    image = sr.SourceImageForMeasurementGroup.from_source_image(source)
    evaluations = [(('verdict', 'Verdict'), (result['verdict'], result['verdict']))]
    if result['flagged']:
        evaluations.append((('opinion', 'Second opinion'), ('unusual', 'unlike sound parts: look at it')))
    verdict = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=_uid(result, 'verdict'), identifier='radiograph'),
        measurements=[
            sr.Measurement(_code('risk', 'Highest score of a rejecting class'), result['risk'], ratio),
            sr.Measurement(_code('threshold', 'Threshold'), result['threshold'], ratio),
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(_code(*name), _code(*value)) for name, value in evaluations
        ],
        source_images=[image],
    )
    findings = [_finding(source, result, k, box) for k, box in enumerate(result['boxes'], 1)]
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=_uid(dict(radiograph='', folder=result['folder'], threshold=0), 'device'),
        name='mmxray',
        manufacturer_name='MMXray',
        model_name=result['folder'][:16],
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(codes.DCM.Device, device)
        ),
        procedure_reported=_code('inspection', 'Radiographic inspection'),
        imaging_measurements=[verdict, *findings],
        title=codes.DCM.ImagingMeasurementReport,
    )
    return sr.Comprehensive3DSR(
        evidence=[source],
        content=content,
        series_instance_uid=_uid(result, 'series'),
        series_number=SERIES,
        sop_instance_uid=_uid(result, 'report'),
        instance_number=1,
        manufacturer='MMXray',
        manufacturer_model_name='mmxray',
        software_versions=__version__,
        device_serial_number=result['folder'][:16],
    )


def _finding(source: Any, result: dict[str, Any], number: int, found: dict[str, Any]) -> Any:
    import numpy as np
    from highdicom import sr
    from pydicom.sr.codedict import codes

    x1, y1, x2, y2 = found['box']
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=_uid(result, f'finding {number}'), identifier=f'finding {number}'
        ),
        referenced_region=sr.ImageRegion(
            sr.GraphicTypeValues.POLYLINE, corners, sr.SourceImageForRegion.from_source_image(source)
        ),
        finding_type=_code(found['class'], found['class']),
        measurements=[sr.Measurement(_code('score', 'Score'), found['score'], codes.UCUM.NoUnits)],
    )


def _code(value: str, meaning: str) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value[:16], SCHEME, meaning[:64])


def _uid(result: dict[str, Any], what: str) -> str:
    """Return a UID (ISO/IEC 9834-8): the same radiograph, detector and threshold have the same report."""
    identity = f'{result["radiograph"]} {result["folder"]} {result["threshold"]} {what}'
    return f'2.25.{int(hashlib.sha256(identity.encode()).hexdigest()[:32], 16)}'
