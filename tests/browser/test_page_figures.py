"""What the benchmark of the page prints: pores, next radiograph, paintings; at a size that takes seconds."""

import re
import subprocess
import sys

import pytest

from projects.benchmark import page


def test_the_page_is_measured_without_any_input(repo):
    # In a process of its own: Playwright runs once in each.
    command = [sys.executable, '-m', 'projects.benchmark.page', '--next', '2', '--side', '300']
    printed = subprocess.run(command, cwd=repo, check=True, capture_output=True, text=True).stdout
    film = r'px in a film of 4953 x 1091 px at Fit \(1\d[.\d]* %\).* 60 of 60 with'
    for side in (3, 4):
        assert re.search(rf'^pores of {side} {film}', printed, re.M)
    assert re.search(r'^next radiograph: [\d.]+ s \(median of 2\), [\d.]+ s at most$', printed, re.M)
    painted = [line for line in printed.splitlines() if line.startswith('paint 300 x 300 px on ')]
    assert len(painted) == 2 * 4 * 3  # screens, zooms, filters
    assert any('zoom fit, filter local' in line for line in painted)


def test_a_detector_without_an_archive_is_wrong_use(capsys):
    with pytest.raises(SystemExit):
        page.main(['exported/castings'])
    assert 'expected MODEL and IMAGES together' in capsys.readouterr().err
