"""The version: stated in one place, said by every tool, the changelog and the citation."""

import importlib
import re
from pathlib import Path

import pytest
import torch

import projects
from tools.train import main as train

TOOLS = sorted(path.stem for path in (Path(__file__).parents[2] / 'tools').glob('*.py'))


@pytest.mark.parametrize('tool', [name for name in TOOLS if name != 'launch'])  # it starts ranks of train.py
def test_each_tool_says_the_version(tool, capsys):
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f'tools.{tool}').main(['--version'])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f'mmxray {projects.__version__}\n'


def test_changelog_and_citation_know_the_version(repo):
    changelog = (repo / 'CHANGELOG.md').read_text()
    assert projects.__version__ in re.search(r'^## .*$', changelog, re.MULTILINE)[0]
    assert f'\nversion: {projects.__version__}\n' in (repo / 'CITATION.cff').read_text()


def test_a_checkpoint_says_the_version(classifier):
    hook = "dict(type='PaceHook')"
    text = classifier.read_text()
    assert hook in text
    classifier.write_text(text.replace(hook, f"{hook}, dict(type='ResumeHook')"))
    assert train([str(classifier), '--cfg-options', 'train_cfg.max_epochs=1']) == 0
    (checkpoint,) = Path().rglob('epoch_1.pth')
    assert torch.load(checkpoint, map_location='cpu')['meta']['mmxray_version'] == projects.__version__
