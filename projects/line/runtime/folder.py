"""The exported folder: graphs, and `metadata.json` with all that a line PC has to know of them."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from projects.errors import MMXrayError
from projects.radiograph.files import sha256
from projects.radiograph.image import ImagingError
from projects.radiograph.window import check_window

METADATA = 'metadata.json'
SIGNATURE = 'metadata.json.sig'  # ed25519, of the bytes of the metadata, which hold the hashes of the graphs
_GRAPHS = {'.xml', '.bin', '.onnx', '.data', '.pb', '.blob'}
FORMAT = 4
NO_BAND = (
    'no gray-level band: fewer than 10 validation radiographs set none, so that frames without a picture, '
    'such as of a shutter half closed, are inspected and may pass'
)
MAX_FALSE_REJECT = 0.1  # of the sound parts, above which export and inference warn


class FolderError(MMXrayError, ValueError):
    """An exported folder is missing, damaged or of another format; one line with the remedy."""


@dataclass
class Exported:
    """What `metadata.json` says.

    Attributes:
        engines: Graph file of each engine, 'openvino' and 'onnxruntime'.
        precision: 'fp32' or 'int8'.
        input: [height, width] in px of the graph's input.
        scale: [width, height] in px into which an image is resized, keeping its ratio; or the number that its
            sides are multiplied with.
        native: [height, width] in px of the validation radiograph that is shrunk the most.
        window: See `radiograph.window.apply_window`.
        dtype: Of the windowed image before it is resized: 'uint8', 'uint16' or 'float32'.
        mean: Gray level that becomes 0, also put beyond the image's border.
        std: Gray levels that become 1.
        iou: Above this intersection over union, of two boxes of a class the better one stays.
        classes: Names in label order, the critical one first.
        rejecting: Classes that reject a part.
        threshold: Score at or above which a detection counts.
        threshold_reason: Where the threshold is from.
        depths: Of the radiographs that the detector was validated and calibrated on, see
            `inspector.depth_of`; others are refused. Empty takes any.
        gray_levels: Lowest and highest value of each statistic of `radiograph.gray_levels`: what the
            validation radiographs span, and a margin. A frame outside is refused. Empty takes any.
        reference: What drift is measured against, of the validation radiographs: `radiographs`, `units`
            (parts, or radiographs where these are not known), `gray` (statistics of `drift.GRAYS`) and `risk`
            of the `sound` and the `critical` ones: `count`, and of the `accepted` and the `rejected` among
            them, as of each gray statistic, `count`, `mean`, `spread` (standard deviation), `quantiles`.
            Empty where there are too few.
        opinion: The second opinion, see `opinion.SecondOpinion`: its `graph` and `memory`, files;
            `threshold`, above which is flagged; of held-out sound parts `flagged` of `sound`, `upper` at
            `confidence`. Empty without one.
        curve: Rows {threshold, escape, false_reject} of validation parts; rates in [0, 1] or None. Beside
            each rate `…_events` of `…_units`, `…_upper`, its one-sided 95 % bound, and `…_words`, all of it
            in the words of the report.
        cost: Sound validation parts rejected at the threshold: `rejected`, `sound`, `rate`, and `upper`, the
            one-sided bound at `confidence`. Empty where parts are not known or none is sound.
        max_false_reject: Share of sound parts above which export and inference warn.
        origin: Config, checkpoint with SHA-256, commit, date, command, versions.
        calibration: How the INT8 graph was made; empty for fp32.
        parity: Rows of the comparison with mmdet at export.
        files: SHA-256 of each graph file.
    """

    engines: dict[str, str]
    precision: str
    input: list[int]
    scale: list[int] | float
    native: list[int]
    window: dict[str, Any]
    dtype: str
    mean: float
    std: float
    iou: float
    classes: list[str]
    rejecting: list[str]
    threshold: float
    threshold_reason: str
    depths: list[str]
    gray_levels: dict[str, list[float]] = field(default_factory=dict)
    reference: dict[str, Any] = field(default_factory=dict)
    opinion: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    max_false_reject: float = MAX_FALSE_REJECT
    origin: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    parity: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what the runtime could not use."""
        factor = isinstance(self.scale, float) and 0 < self.scale < math.inf
        for name in ('input', 'native') if factor else ('input', 'scale', 'native'):
            values = getattr(self, name)
            two = isinstance(values, list) and len(values) == 2
            if not two or not all(isinstance(v, int) and v > 0 for v in values):
                raise FolderError(f'{name} = {values!r}, expected two whole numbers of px; export again')
        if not 0 <= self.threshold <= 1 or not all(map(math.isfinite, (self.mean, self.std))) or not self.std:
            raise FolderError('threshold, mean or std out of range; export again')
        if not 0 < self.iou <= 1 or not all(isinstance(depth, str) for depth in self.depths):
            raise FolderError(f'iou {self.iou} or depths {self.depths} out of range; export again')
        names = [*self.engines.values(), *self.files, *self.opinion_files]
        if not all(_is_plain(name) for name in names):
            raise FolderError(f'files {names}: expected names without a folder; copy the folder again')
        if not self.classes or not set(self.rejecting) <= set(self.classes):
            raise FolderError(
                f'rejecting {self.rejecting} among {self.classes}, expected classes; export again'
            )
        try:
            check_window(self.window)
        except ImagingError as error:
            raise FolderError(str(error)) from None

    @property
    def opinion_files(self) -> list[str]:
        """Of the second opinion."""
        return [self.opinion['graph'], self.opinion['memory']] if self.opinion else []

    def false_reject(self, threshold: float) -> float | None:
        """Return the share of sound validation parts that a threshold rejects, at most; None where not known.

        Of the rows of the curve the one at or below the threshold holds, which rejects no fewer.
        """
        if self.cost and threshold == self.threshold:
            return float(self.cost['rate'])
        below = [row['false_reject'] for row in self.curve if row['threshold'] <= threshold]
        return below[-1] if below else None

    def cost_in_words(self) -> str:
        """Say what the threshold of the folder costs: the sound validation parts that it rejects."""
        if not self.cost:
            return 'what it costs is not known: no validation part is known to be sound'
        cost = self.cost
        return (
            f'{cost["rejected"]} of {cost["sound"]} sound validation parts rejected ({cost["rate"]:.1%}, at '
            f'most {cost["upper"]:.1%} with {cost["confidence"]:.0%} confidence)'
        )

    def files_of(self, engine: str | None) -> dict[str, str]:
        """Return SHA-256 of the files of an engine's graph, or with None of all files."""
        if engine is None:
            return self.files
        graph = Path(self.engines[engine])
        names = (graph.name, graph.stem + '.bin', *self.opinion_files)
        return {name: self.files[name] for name in names if name in self.files}


def factor_of(size: Sequence[int], scale: list[int] | float) -> float:
    """Return what mmdet's resizing multiplies the sides of an image with.

    Args:
        size: The two sides of it in px.
        scale: See `Exported.scale`.
    """
    if isinstance(scale, float):
        return scale
    return min(max(scale) / max(size), min(scale) / min(size))


def write(folder: Path, exported: Exported) -> None:
    """Take the checksums of the graphs in a folder and write its metadata."""
    exported.files = {
        path.name: sha256(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in (METADATA, SIGNATURE)
    }
    content = dict(format=FORMAT, **asdict(exported))
    content['checksum'] = _checksum(content)
    (folder / METADATA).write_text(json.dumps(content, indent=1) + '\n')


def read(folder: str | Path, engine: str | None = None, key: str | Path | None = None) -> Exported:
    """Read a folder's metadata and prove that its files are as they were exported.

    Args:
        folder: What `tools/export.py` wrote.
        engine: Whose files are looked at; default, all.
        key: File with the public ed25519 key (PEM) of who may export; None asks for no signature. Checksums
            find damage, a signature also what somebody changed.

    Raises:
        FolderError: No such folder, no graph for the engine, a file that is missing, changed or of another
            format, a graph that the metadata do not name, or no signature by the key.
    """
    path = Path(folder) / METADATA
    try:
        coded = path.read_bytes()
        if key is not None:
            check_signature(path.parent, coded, Path(key))
        content = json.loads(coded)
    except FolderError:
        raise
    except OSError as error:
        raise FolderError(
            f'{path}: expected an exported detector ({error.strerror}); make one with tools/export.py'
        ) from None
    except (ValueError, RecursionError):
        raise FolderError(f'{path}: expected JSON, found a damaged file; copy the folder again') from None
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        there = content.get('format') if isinstance(content, dict) else None
        raise FolderError(
            f'{path}: expected export format {FORMAT}, found {there!r:.20}, which says less of the proof; '
            'export again with this version'
        )
    if content.pop('checksum', None) != _checksum(content):
        raise FolderError(
            f'{path}: its checksum does not fit, so it was damaged or edited; copy the folder again, and set '
            'a threshold where the detector is run'
        )
    del content['format']
    wanted = {f.name for f in fields(Exported)}
    if set(content) != wanted:
        raise FolderError(f'{path}: expected the keys {sorted(wanted)}; export again with this version')
    try:
        exported = Exported(**content)
    except FolderError as error:
        raise FolderError(f'{path}: {error}') from None
    if engine is not None and engine not in exported.engines:
        raise FolderError(
            f"{folder}: has no graph for '{engine}', expected one of {sorted(exported.engines)}; choose that "
            'engine, or export again'
        )
    wanted_files = exported.files_of(engine)
    needed = [] if engine is None else [exported.engines[engine], *exported.opinion_files]
    for name in needed:
        if name not in wanted_files:
            raise FolderError(f'{path}: names no checksum of {name}; export again')
    _refuse_added(path.parent, exported)
    for name, digest in wanted_files.items():
        file = path.parent / name
        if not file.is_file():
            raise FolderError(f'{file}: expected this file of the export; copy the folder again')
        if sha256(file) != digest:
            raise FolderError(f'{file}: its checksum does not fit, so it was damaged; copy the folder again')
    return exported


def check_signature(folder: Path, content: bytes, key: Path) -> None:
    """Refuse metadata that the owner of a key did not sign.

    Args:
        folder: Where the signature is, `metadata.json.sig`: 64 bytes.
        content: Of the metadata.
        key: File with the public ed25519 key, PEM.

    Raises:
        FolderError: The key cannot be read, or the signature is missing or another's.
    """
    # Only who asks for a signature waits for the library.
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(key.read_bytes())
        if not isinstance(public, Ed25519PublicKey):
            raise ValueError
    except (OSError, ValueError, UnsupportedAlgorithm):
        raise FolderError(
            f'{key}: expected a public ed25519 key in PEM; openssl pkey -in KEY -pubout makes one'
        ) from None
    path = folder / SIGNATURE
    try:
        public.verify(path.read_bytes(), content)
    except OSError as error:
        raise FolderError(
            f'{path}: expected a signature ({error.strerror}); have the folder signed'
        ) from None
    except InvalidSignature:
        raise FolderError(
            f'{path}: does not fit {METADATA} and {key.name}: the folder was changed, or another signed it; '
            'copy the folder again'
        ) from None


def _is_plain(name: object) -> bool:
    """Tell a file's own name from a path, of any operating system."""
    return isinstance(name, str) and not set(name) & set('/\\\0:') and name not in ('', '.', '..')


def _refuse_added(folder: Path, exported: Exported) -> None:
    """Refuse graphs and weights that nothing hashes: an engine may read them beside those that are named."""
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in _GRAPHS and file.name not in exported.files:
            raise FolderError(f'{file}: is not of this export; take it away, or copy the folder again')


def digest_of(exported: Exported) -> str:
    """Return the SHA-256 that stands for a folder: of its metadata, which hold those of its graphs."""
    return _checksum(dict(format=FORMAT, **asdict(exported)))


def stated_digest(folder: str | Path) -> str:
    """Return the digest that a folder states, unproven; '' where it states none. See `digest_of`."""
    try:
        return str(json.loads((Path(folder) / METADATA).read_bytes())['checksum'])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ''


def tested_beside(source: str | Path) -> Path:
    """Return the folder beside an exported one that keeps its test: nothing is written into the export."""
    path = Path(source).resolve()
    return path.with_name(f'{path.name}.test')


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps({k: v for k, v in content.items() if k != 'checksum'}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
