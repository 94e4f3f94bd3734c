"""What fits a data set: the input by the size of its flaws, epochs by its images, and what is warned of."""

from pathlib import Path

import numpy as np
import pytest

from projects.experiment.choice import CROP, SMALLEST, choose
from projects.experiment.facts import ExperimentError, Facts
from projects.prepare.anchors import Boxes


def facts(side=20.0, size=(1024, 768), train=210, unlabeled=2000, critical=100, **more):
    """A data set whose flaws are squares of about `side` px."""
    rng = np.random.default_rng(0)
    wide = side * rng.uniform(0.9, 1.1, 300)
    corners = rng.uniform(0, np.array(size) - 2 * side, (300, 2))
    boxes = np.column_stack([corners, wide, wide])
    given = dict(
        root=Path('data/own'),
        classes=('critical', 'minor'),
        images=dict(train=train, val=31, test=62),
        sound=dict(train=20, val=3, test=6),
        boxes=Boxes(boxes, boxes, np.tile(np.array(size, float), (300, 1))),
        counts=dict(critical=100, minor=200),
        types=['crack', 'gas_pore'],
        drawable=['crack', 'gas_pore'],
        unlabeled=unlabeled,
        parts_known=True,
        critical_parts=critical,
        window=dict(type='full'),
        gray='found',
    )
    return Facts(**given | more)


def test_small_flaws_keep_their_size_and_are_learnt_from_crops():
    chosen = choose(facts(side=12), 'cpu')
    assert chosen.crops and chosen.factor == 1.0
    assert str(CROP) in chosen.reasons['input'] and '1024 x 768' in chosen.reasons['input']
    assert not chosen.warnings


def test_what_was_found_of_gray_levels_and_archive_is_said():
    reasons = choose(facts(), 'cpu').reasons
    assert reasons['window'] == 'the range stated in the files; found' and reasons['pretraining'].startswith(
        '2000 unlabelled'
    )
    dark = facts(unlabeled=12, window=dict(type='absolute', low=0, high=4095))
    reasons = choose(dark, 'cpu').reasons
    assert reasons['window'] == '0 to 4095; found'
    assert reasons['pretraining'].endswith('since 12 unlabelled ones are too few')
    assert choose(facts(unlabeled=0), 'cpu').reasons['pretraining'].endswith('since there is no archive')


def test_large_flaws_let_a_cpu_shrink_the_radiographs():
    crops, whole = choose(facts(side=24), 'cpu'), choose(facts(side=80), 'cpu')
    assert crops.crops and 0.4 < crops.factor < 0.8
    assert not whole.crops and max(whole.size) <= 320
    # What a resize within these bounds leaves of them is enough.
    assert 72 * min(max(whole.size) / 1024, min(whole.size) / 768) >= 12


@pytest.mark.parametrize('scale', ['cpu', 'one-gpu', 'four-gpu'])
def test_flaws_below_eight_pixels_at_the_input_are_warned_of_with_the_remedy(scale):
    assert not [w for w in choose(facts(side=14), scale).warnings if 'smaller' in w]
    (result,) = [w for w in choose(facts(side=4, size=(2048, 2048)), scale).warnings if 'smaller' in w]
    assert f'below {SMALLEST} px' in result and '--tile' in result


def test_a_gpu_sees_whole_radiographs_large_enough_for_the_flaws():
    assert choose(facts(side=40), 'one-gpu').size == (1024, 768)
    assert max(choose(facts(side=14, size=(2048, 2048)), 'one-gpu').size) > 1024
    assert choose(facts(side=40, size=(512, 512)), 'four-gpu').size == (512, 512)


def test_the_batch_follows_the_memory():
    batches = [choose(facts(), 'one-gpu', memory).batch for memory in (8e9, 16e9, 80e9)]
    assert batches == sorted(batches) and batches[0] < batches[-1]
    assert choose(facts(), 'one-gpu').batch == 8
    four = choose(facts(), 'four-gpu')
    assert (four.gpus, four.batch) == (4, 4)


def test_few_images_want_many_epochs():
    epochs = [choose(facts(train=n), 'cpu').epochs for n in (30, 210, 3000)]
    assert epochs == sorted(epochs, reverse=True)
    assert [choose(facts(train=n), 'four-gpu').epochs for n in (300, 3000)] == [72, 24]


def test_anchors_are_those_that_the_check_would_suggest():
    small, large = choose(facts(side=14), 'cpu').anchors, choose(facts(side=30), 'cpu').anchors
    assert max(small) < max(choose(facts(side=200), 'one-gpu').anchors)
    assert small and large


def test_pretraining_takes_the_archive_else_the_training_radiographs():
    plan = choose(facts(unlabeled=2000), 'cpu').pretraining
    assert (plan.folder, plan.listed, plan.images) == ('unlabeled', '', 2000)
    alone = choose(facts(unlabeled=0), 'cpu')
    assert (alone.pretraining.folder, alone.pretraining.listed) == ('images', 'train.txt')
    assert alone.pretraining.images == 210 and alone.pretraining.batch <= 210
    assert not alone.drawn_epochs
    assert choose(facts(unlabeled=0, train=12), 'cpu').pretraining is None


@pytest.mark.parametrize(
    ('more', 'expected'),
    [
        (dict(unlabeled=200), 'pretraining on 200 radiographs is unlikely to pay, 1,000 are the least'),
        (dict(sound=dict(train=0, val=0, test=0)), 'false alarms on sound parts cannot be measured'),
        (dict(critical=9), '59 without a miss prove at most 5 %'),
        (dict(parts_known=False), 'convert again with --group'),
    ],
)
def test_what_the_data_cannot_carry_is_said_with_what_would_do(more, expected):
    (found,) = [w for w in choose(facts(**more), 'cpu').warnings if expected in w]
    assert '\n' not in found


def test_flaws_are_drawn_where_their_types_have_a_severity():
    assert [choose(facts(unlabeled=n), 'cpu').drawn_epochs for n in (20, 300, 2000, 9000)] == [60, 20, 3, 2]
    assert (
        'set. Their real flaws count as sound in it. 6,000 crops'
        in choose(facts(), 'cpu').reasons['drawn flaws']
    )
    assert not choose(facts(drawable=[]), 'cpu').drawn_epochs
    assert not choose(facts(), 'one-gpu').drawn_epochs


def test_fewer_radiographs_than_a_batch_are_refused():
    with pytest.raises(ExperimentError, match=r'data/own/train.json: 3 radiographs, expected at least'):
        choose(facts(train=3), 'cpu')
