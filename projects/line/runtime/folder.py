"""The exported folder: graphs, and `metadata.json` with all that a line PC needs to run them."""

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
SIGNATURE = 'metadata.json.sig'  # ed25519 signature of the metadata, which hold the hashes of the graphs
_GRAPHS = {'.xml', '.bin', '.onnx', '.data', '.pb', '.blob'}
FORMAT = 4
NO_BAND = (
    'no gray-level band: fewer than 10 validation radiographs cannot define it; frames without a picture, '
    'such as with a half-closed shutter, are inspected and may pass'
)
MAX_FALSE_REJECT = 0.1  # share of sound parts above which export and inference warn


class FolderError(MMXrayError, ValueError):
    """An exported folder is missing, damaged or of another format; one line with the remedy."""


@dataclass
class Exported:
    """The content of `metadata.json`.

    Attributes:
        engines: Graph file of each engine, 'openvino' and 'onnxruntime'.
        precision: 'fp32' or 'int8'.
        input: [height, width] in px of the graph's input.
        scale: [width, height] in px into which an image is resized with its aspect ratio kept; or the factor
            of its sides.
        native: [height, width] in px of the validation radiograph that is shrunk the most.
        window: See `radiograph.window.apply_window`.
        dtype: Type of the windowed image before it is resized: 'uint8', 'uint16' or 'float32'.
        mean: Gray level that becomes 0; it also fills the input beyond the image's border.
        std: Difference of gray levels that becomes 1.
        iou: IoU of two boxes of a class above which only the better box stays.
        classes: Names in label order, the critical one first.
        rejecting: Classes that reject a part.
        threshold: Score at or above which a detection counts.
        threshold_reason: How the threshold was chosen.
        depths: Depths of the validation and calibration radiographs, see `inspector.depth_of`; other depths
            are refused. Empty accepts any depth.
        gray_levels: Lowest and highest value of each statistic of `radiograph.gray_levels`: the range of the
            validation radiographs and a margin. A frame outside is refused. Empty accepts any frame.
        reference: Reference of the drift charts, from the validation radiographs. `radiographs` is their
            number, `units` the number of parts, or of radiographs if the parts are unknown. `gray` has each
            statistic of `drift.GRAYS`. `risk` has, for `sound` and `critical` radiographs, `count` and the
            scores of the `accepted` and the `rejected` radiographs. Statistics and scores are given as
            `count`, `mean`, `spread` (standard deviation) and `quantiles`. Empty if there are too few.
        opinion: The second opinion, see `opinion.SecondOpinion`: `graph` and `memory`, its files;
            `threshold`, the score above which it flags; `flagged` of `sound` held-out sound parts, and
            `upper`, the bound at `confidence`. Empty without a second opinion.
        curve: Rows {threshold, escape, false_reject} of validation parts; rates in [0, 1] or None. Each rate
            also has `…_events` of `…_units`, `…_upper`, its one-sided 95 % bound, and `…_words`, the whole
            result in the words of the report.
        cost: Sound validation parts rejected at the threshold: `rejected`, `sound`, `rate`, and `upper`, the
            one-sided bound at `confidence`. Empty if parts are unknown or no part is sound.
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
        """Refuse values that the runtime cannot use."""
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
        """File names of the second opinion."""
        return [self.opinion['graph'], self.opinion['memory']] if self.opinion else []

    def false_reject(self, threshold: float) -> float | None:
        """Return the largest share of sound validation parts that a threshold rejects; None if unknown.

        The share is that of the last row of the curve at or below the threshold, which rejects no fewer.
        """
        if self.cost and threshold == self.threshold:
            return float(self.cost['rate'])
        below = [row['false_reject'] for row in self.curve if row['threshold'] <= threshold]
        return below[-1] if below else None

    def cost_in_words(self) -> str:
        """Return in words the cost of the folder's threshold: the sound validation parts that it rejects."""
        if not self.cost:
            return 'not known, as no validation part is known to be sound'
        cost = self.cost
        return (
            f'{cost["rejected"]} of {cost["sound"]} sound validation parts rejected ({cost["rate"]:.1%}, at '
            f'most {cost["upper"]:.1%} with {cost["confidence"]:.0%} confidence)'
        )

    def files_of(self, engine: str | None) -> dict[str, str]:
        """Return the SHA-256 of each file of an engine's graph; with None, of all files."""
        if engine is None:
            return self.files
        graph = Path(self.engines[engine])
        names = (graph.name, graph.stem + '.bin', *self.opinion_files)
        return {name: self.files[name] for name in names if name in self.files}


def factor_of(size: Sequence[int], scale: list[int] | float) -> float:
    """Return the factor by which mmdet's resizing multiplies the sides of an image.

    Args:
        size: The two sides of the image in px.
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
        folder: Folder that `tools/export.py` wrote.
        engine: Engine whose files are checked; default, all files.
        key: File with the public ed25519 key (PEM) that must have signed the folder; None asks for no
            signature. Checksums detect damage; a signature also detects a deliberate change.

    Raises:
        FolderError: The folder is missing, has no graph for the engine, has a graph that the metadata do not
            name, or has no signature by the key; or a file is missing, changed or of another format.
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
            f'{path}: expected export format {FORMAT}, found {there!r:.20}, which records less of the proof; '
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
        folder: Folder of the signature, `metadata.json.sig`: 64 bytes.
        content: Bytes of the metadata.
        key: File with the public ed25519 key, PEM.

    Raises:
        FolderError: The key cannot be read, or the signature is missing or of another key.
    """
    # The import is slow: only a check of a signature needs it.
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
    """Whether a name is a file name without a folder, on any operating system."""
    return isinstance(name, str) and not set(name) & set('/\\\0:') and name not in ('', '.', '..')


def _refuse_added(folder: Path, exported: Exported) -> None:
    """Refuse graphs and weights without a recorded hash: an engine may read them beside the named files."""
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in _GRAPHS and file.name not in exported.files:
            raise FolderError(f'{file}: is not of this export; take it away, or copy the folder again')


def digest_of(exported: Exported) -> str:
    """Return the SHA-256 that identifies a folder: of its metadata, which hold the hashes of its graphs."""
    return _checksum(dict(format=FORMAT, **asdict(exported)))


def stated_digest(folder: str | Path) -> str:
    """Return the digest that a folder's metadata state, without a check; '' if missing. See `digest_of`."""
    try:
        return str(json.loads((Path(folder) / METADATA).read_bytes())['checksum'])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ''


def tested_beside(source: str | Path) -> Path:
    """Return the folder beside an exported one that keeps its test: the export itself is not changed."""
    path = Path(source).resolve()
    return path.with_name(f'{path.name}.test')


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps({k: v for k, v in content.items() if k != 'checksum'}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
