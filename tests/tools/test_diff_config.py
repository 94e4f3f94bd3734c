"""tools/diff_config.py and the flat tables beneath it."""

import subprocess
import sys

import pytest
from helpers.config_grammar import CONFIGS, find

from projects.config.configs import ABSENT, ConfigError, align, differences, flatten, load_config, under
from tools.diff_config import main

SIMSIAM = 'simsiam_resnet50_4xb64-coslr-100e_industrial-224px'
SIMMIM = 'simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px'


@pytest.fixture
def write(tmp_path):
    """Write a config and return its path."""

    def _write(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return _write


@pytest.fixture
def pair(write):
    """A config, and one that inherits it and changes a number, drops a list item and adds a key."""
    a = write('a.py', "model = dict(depth=50, out=(0, 1, 2))\nname = 'a'\n")
    return a, write('b.py', "_base_ = './a.py'\nmodel = dict(depth=18, out=(0, 1), extra=dict(lr=0.1))\n")


def test_flatten_gives_dotted_keys_in_order():
    flat = flatten(dict(b=dict(c=[1, dict(d=None)], e={}), a=(), xray_variable=3))
    assert list(flat.items()) == [('b.c.0', 1), ('b.c.1.d', None), ('b.e', {}), ('a', [])]


def test_lists_and_tuples_are_alike_but_numbers_and_booleans_are_not():
    assert not differences(dict(a=(1, 2)), dict(a=[1, 2]))
    assert differences(dict(a=1), dict(a=True)) == {'a': (1, True)}


def test_differences_name_what_one_side_lacks():
    assert differences(dict(a=dict(b=1)), dict(a=dict(c=2))) == {'a.b': (1, ABSENT), 'a.c': (ABSENT, 2)}


@pytest.mark.parametrize(
    ('key', 'expected'),
    [('model.neck', True), ('model.neck.type', True), ('model.necks', False), ('model', False)],
)
def test_a_prefix_ends_at_a_dot(key, expected):
    assert under(key, ['model.neck']) is expected


def test_equal_configs_exit_0(pair, capsys):
    assert main([pair[0], pair[0]]) == 0
    assert '0 differences' in capsys.readouterr().out


def test_differences_are_printed_in_columns_and_exit_1(pair, capsys):
    assert main([*pair]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        '! model.depth     50        18',
        '! model.extra.lr  (absent)  0.1',
        '! model.out.2     2         (absent)',
        '3 differences',
    ]


def test_a_wide_value_goes_below_its_key(write, capsys):
    a, b = write('a.py', f"checkpoint = '{'x' * 200}'\n"), write('b.py', 'checkpoint = None\n')
    assert main([a, b]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:5] == ['! checkpoint', f"      A  '{'x' * 200}'", '      B  None']


def test_allowed_differences_exit_0_and_others_do_not(pair, capsys):
    assert main([*pair, '--allow', 'model']) == 0
    assert '3 differences, 3 allowed, 0 outside' in capsys.readouterr().out
    assert main([*pair, '--allow', 'model.depth', 'model.extra']) == 1
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if line.startswith('!')] == ['model.out.2']


def typed(*types, **more):
    return dict(hooks=[dict(type=name, **more.get(name, {})) for name in types])


def found(a, b):
    return [(row.key, row.a, row.b) for row in align(a, b) if row.differs]


def test_one_item_more_in_a_list_is_one_difference():
    assert found(typed('A', 'B', 'C'), typed('A', 'New', 'B', 'C')) == [
        ('hooks.New', ABSENT, dict(type='New'))
    ]
    assert found(typed('A', 'B', 'B'), typed('A', 'B')) == [('hooks.B#2', dict(type='B'), ABSENT)]
    inner = found(typed('A', 'B', B=dict(lr=1)), typed('New', 'A', 'B', B=dict(lr=2)))
    assert inner == [('hooks.B.lr', 1, 2), ('hooks.New', ABSENT, dict(type='New'))]


def test_an_item_that_only_moved_says_so(write, capsys):
    (row,) = [row for row in align(typed('A', 'B', 'C'), typed('B', 'C', 'A')) if row.differs]
    assert (row.key, row.a, row.b, row.moved) == ('hooks.A', 0, 2, True)
    a, b = (
        write(f'{k}.py', f'hooks = {typed(*names)["hooks"]}') for k, names in (('a', 'ABC'), ('b', 'BCA'))
    )
    assert main([a, b]) == 1
    assert '! hooks.A  moved: number 0  number 2' in capsys.readouterr().out


def test_what_align_finds_is_what_differs():
    configs = [load_config(path) for path in (find(SIMSIAM), find(SIMMIM))]
    assert not [row for row in align(configs[0], configs[0]) if row.differs]
    rows = [row for row in align(*configs) if row.differs]
    hooks = [row.key for row in rows if row.key.startswith('custom_hooks.')]
    # Each method's own, not every hook behind the first.
    assert hooks == [
        'custom_hooks.SimSiamHook',
        'custom_hooks.CollapseHook',
        'custom_hooks.ReconstructionHook',
    ]


def test_allowed_keys_may_have_numbers(write, capsys):
    a, b = write('a.py', "hooks = [dict(type='A', lr=1)]"), write('b.py', "hooks = [dict(type='A', lr=2)]")
    assert main([a, b, '--allow', 'hooks.0.lr']) == 0
    assert main([a, b, '--allow', 'hooks.A.lr']) == 0
    assert main([a, b, '--allow', 'hooks.1']) == 1


def test_both_stand_side_by_side_on_a_page(write, tmp_path, capsys):
    a, b = write('a.py', "name = '<b>'\nsame = 1\n"), write('b.py', "name = 'c'\nsame = 1\nmore = 2\n")
    page = tmp_path / 'diff.html'
    assert main([a, b, '--html', str(page)]) == 1
    text = page.read_text()
    assert '<h1>2 differences</h1>' in text and '&lt;b&gt;' in text and '<b>' not in text
    assert text.count('class="same"') == 1 and text.count('class="differs"') == 2
    assert main([a, b, '--html', str(tmp_path / 'no' / 'diff.html')]) == 2
    assert capsys.readouterr().err.count('\n') == 1


def test_one_config_is_printed_so_that_it_can_be_read_again(pair, write, capsys):
    assert main([pair[1]]) == 0
    resolved = write('resolved.py', capsys.readouterr().out)
    assert not differences(load_config(pair[1]), load_config(resolved))


def test_an_arm_of_the_project_differs_under_its_axis_only(capsys):
    stem = 'faster-rcnn_r50-{}-pre_fpn_4xb4-2x_industrial'
    pair = [str(find(stem.format(init))) for init in ('in1k', 'simsiam')]
    assert main([*pair, '--allow', 'model.backbone.init_cfg']) == 0
    assert main([*pair, '--allow', 'train_dataloader']) == 1


def test_a_published_recipe_is_found_in_its_package():
    config = load_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    assert config.model.backbone.depth == 50


BAD = {
    'nowhere.py': None,
    'config.md': 'a = 1',
    'syntax.py': 'a = (',
    'list.json': '[1]',
    'empty.yaml': '',
    'stops.py': 'raise SystemExit(3)',
    'orphan.py': "_base_ = './nowhere.py'",
}


@pytest.mark.parametrize('name', BAD)
def test_bad_files_give_one_line_and_exit_2(name, tmp_path, write, capsys):
    path = str(tmp_path / name) if BAD[name] is None else write(name, BAD[name])
    assert main([path]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.count('\n') == 1
    assert name in captured.err


@pytest.mark.parametrize('name', ['mmdet::nowhere.py', 'nowhere::a.py', 'not a name::a.py', '::a.py'])
def test_bad_package_paths_are_refused(name):
    with pytest.raises(ConfigError, match=name):
        load_config(name)


def test_wrong_use_exits_2_without_a_traceback():
    tool = CONFIGS.parent / 'tools' / 'diff_config.py'
    done = subprocess.run(
        [sys.executable, str(tool), 'a.py', '--allow', 'model'], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert '--allow needs two configs' in done.stderr
    assert 'Traceback' not in done.stderr


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as caught:
        main(['--help'])
    assert caught.value.code == 0
    assert 'python tools/diff_config.py configs/' in capsys.readouterr().out
