"""The files that installed packages ship: what we read of them is what other libraries read."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers import reader_corpus
from helpers.radiograph_files import png, ramp

PACKAGES = ('pydicom', 'skimage', 'matplotlib', 'imageio', 'networkx', 'sklearn', 'scipy')


def folders():
    """The packages of the environment that ship images."""
    found = [find_spec(name) for name in PACKAGES]
    return [Path(spec.origin).parent for spec in found if spec and spec.origin]


@pytest.mark.long
def test_installed_files_are_read_as_others_read_them_or_refused():
    kinds = reader_corpus.compare(folders())
    assert kinds['wrong'] == {}
    assert len(kinds['equal']) > 70


@pytest.mark.parametrize('turned', [False, True])
def test_a_file_that_is_read_otherwise_is_named(turned, tmp_path, capsys, monkeypatch):
    (tmp_path / 'a.png').write_bytes(png(ramp(8)))
    (tmp_path / 'b.txt').write_text('text')
    read = reader_corpus.read

    def upside_down(path, frame):
        radiograph = read(path, frame=frame)
        radiograph.pixels = radiograph.pixels[::-1]
        return radiograph

    if turned:
        monkeypatch.setattr(reader_corpus, 'read', upside_down)
    assert reader_corpus.main([str(tmp_path)]) == turned
    printed = capsys.readouterr().out
    assert ('1 wrong' in printed) == turned and '1 foreign' in printed
