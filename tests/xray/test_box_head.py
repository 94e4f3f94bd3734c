"""Box heads of defect types handed over to classes: rows, sums, whole detectors, what is refused."""

import copy
import re

import pytest
import torch
from helpers.handover import RESNET_TARGET, detector, hand_over
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from mmengine.runner import save_checkpoint

from projects.xray import box_head
from projects.xray.classes import CASTINGS
from projects.xray.handover import HandoverError
from projects.xray.hooks import verified_load  # noqa: F401

TYPES = list(CASTINGS)
SEVERITIES = ['critical', 'minor']


def logits(state, features):
    return features @ state[f'{box_head.BOX}.fc_cls.weight'].T + state[f'{box_head.BOX}.fc_cls.bias']


def head(types, regressions, features=8):
    """A box head's tensors: rows of `types` and background, boxes of `regressions`."""
    generator = torch.Generator().manual_seed(types)
    rows = {'fc_cls': types + 1, 'fc_reg': 4 * regressions}
    return {
        f'{box_head.BOX}.{layer}.{name}': torch.randn((count, *shape), generator=generator)
        for layer, count in rows.items()
        for name, shape in (('weight', (features,)), ('bias', ()))
    }


def test_types_become_their_severities_and_any_type_a_single_class():
    groups = box_head.group_classes(TYPES, SEVERITIES, 'castings')
    assert [{CASTINGS[TYPES[i]] for i in group} for group in groups] == [{'critical'}, {'minor'}]
    assert sorted(groups[0] + groups[1]) == list(range(19))
    assert box_head.group_classes(TYPES, ['defect']) == [list(range(19))]
    assert box_head.group_classes(SEVERITIES, ['defect']) == [[0, 1]]
    assert box_head.group_classes(SEVERITIES, SEVERITIES[::-1], 'castings') == [[1], [0]]
    assert box_head.say(['a', 'b', 'c'], ['x', 'y'], [[0, 2], [1]]) == 'x (a, c), y (b)'


def test_classes_of_photographs_are_no_classes_of_radiographs():
    assert box_head.group_classes(['person', 'bicycle'], SEVERITIES, 'castings') is None
    assert box_head.group_classes(['person', 'bicycle'], ['defect']) is None


def test_a_type_without_a_class_and_a_class_without_a_type_are_refused():
    with pytest.raises(HandoverError, match="'gas_pore' has none of them; map each type in `severity`"):
        box_head.group_classes(['crack', 'gas_pore'], SEVERITIES, {'crack': 'critical'})
    with pytest.raises(HandoverError, match="'minor' gets none"):
        box_head.group_classes(['crack'], SEVERITIES, 'castings')


def test_types_that_are_alike_keep_the_sum_of_their_probabilities():
    """Where the detector does not tell the types of a class apart, their union is exact."""
    state = head(19, 19)
    groups = box_head.group_classes(TYPES, SEVERITIES, 'castings')
    for group in groups:
        for name in ('weight', 'bias'):
            rows = state[f'{box_head.BOX}.fc_cls.{name}']
            rows[group] = rows[group[0]].clone()
    features = torch.randn(50, 8)
    before = logits(state, features).softmax(1)
    after = logits(box_head.map_heads(state, head(2, 2), groups), features).softmax(1)
    for label, group in enumerate(groups):
        torch.testing.assert_close(after[:, label], before[:, group].sum(1))
    torch.testing.assert_close(after[:, -1], before[:, -1])


def test_the_logit_of_a_union_is_never_above_that_of_its_types():
    state, features = head(19, 19), torch.randn(50, 8)
    mapped = box_head.map_heads(state, head(1, 1), [list(range(19))])
    union = logits(state, features)[:, :19].logsumexp(1)
    assert (logits(mapped, features)[:, 0] <= union + 1e-5).all()
    torch.testing.assert_close(logits(mapped, features)[:, 1], logits(state, features)[:, 19])


@pytest.mark.parametrize(('source', 'target'), [(19, 2), (1, 2), (19, 1), (1, 1)])
def test_regression_of_each_class_and_of_all(source, target):
    """(Boxes by type or one for all) to (by class or one for all): rows are the mean of their types'."""
    state, own = head(19, source), head(2, target)
    groups = box_head.group_classes(TYPES, SEVERITIES, 'castings')
    mapped = box_head.map_heads(state, own, groups)
    for name in ('weight', 'bias'):
        key = f'{box_head.BOX}.fc_reg.{name}'
        assert mapped[key].shape == own[key].shape
        rows = state[key].reshape(source, 4, -1)
        for label, found in enumerate(mapped[key].reshape(target, 4, -1)):
            group = [0] if source == 1 else groups[label] if target == 2 else range(19)
            torch.testing.assert_close(found, rows[list(group)].mean(0))
    assert all(mapped[key].shape == own[key].shape for key in own)


def test_classes_in_another_order_change_places_alone():
    state = head(2, 2)
    mapped = box_head.map_heads(state, state, [[1], [0]])
    key = f'{box_head.BOX}.fc_cls.weight'
    assert torch.equal(mapped[key], state[key][[1, 0, 2]])
    key = f'{box_head.BOX}.fc_reg.bias'
    assert torch.equal(mapped[key], state[key][[4, 5, 6, 7, 0, 1, 2, 3]])


def drawn_detector(path, classes, change=lambda state: None, **model):
    """Save a detector of `classes`, its tensors unlike any initialisation's; return them."""
    source = MODELS.build(detector(RESNET_TARGET, num_classes=len(classes), **model))
    with torch.no_grad():
        for tensor in source.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.1)
    state = copy.deepcopy(source.state_dict())
    change(state)
    meta = dict(experiment_name='drawn_resnet18_x', dataset_meta=dict(classes=tuple(classes)))
    save_checkpoint(dict(state_dict=state, meta=meta), str(path))
    return state


def run_of(classes, severity=None):
    """What the config of a run says of its classes."""
    data = dict(type='XrayDefects', metainfo=dict(classes=classes), severity=severity)
    return Config(dict(train_dataloader=dict(dataset=data)))


@pytest.mark.parametrize(
    ('classes', 'severity', 'message'),
    [
        (('defect',), None, r'Box head: defect \(crack, hot_tear, .*, flash\)'),
        (('critical', 'minor'), 'castings', r'Box head: critical \(crack, .*\), minor \(gas_pore, .*\)'),
    ],
)
def test_a_whole_detector_of_types_arrives_in_a_run_of_classes(tmp_path, request, classes, severity, message):
    file = tmp_path / 'drawn.pth'
    state = drawn_detector(file, TYPES)
    runner, log = hand_over(
        detector(RESNET_TARGET, num_classes=len(classes)),
        tmp_path,
        request,
        load_from=file,
        cfg=run_of(classes, severity),
    )
    assert len(re.findall(message, log)) == 1
    assert 'mismatched: none' in log
    expected = box_head.map_heads(
        state, runner.model.state_dict(), box_head.group_classes(TYPES, classes, severity)
    )
    for key, tensor in runner.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[key], msg=key)


def test_a_detector_of_the_same_classes_arrives_as_it_is(tmp_path, request):
    file = tmp_path / 'drawn.pth'
    state = drawn_detector(file, ['defect'])
    runner, log = hand_over(
        detector(RESNET_TARGET, num_classes=1), tmp_path, request, load_from=file, cfg=run_of(('defect',))
    )
    assert 'Box head' not in log
    assert all(torch.equal(tensor, state[key]) for key, tensor in runner.model.state_dict().items())


@pytest.mark.parametrize(
    ('change', 'complaint'),
    [
        (lambda s: s.pop('neck.fpn_convs.0.conv.weight'), r'1 missing \(neck\.fpn_convs\.0\.conv\.weight\)'),
        (lambda s: s.update({'rpn_head.more': torch.ones(1)}), r'1 unexpected \(rpn_head\.more\)'),
        (
            lambda s: s.update({'rpn_head.rpn_cls.bias': torch.zeros(7)}),
            r'1 of another shape \(rpn_head\.rpn_cls\.bias\)',
        ),
    ],
)
def test_a_detector_that_does_not_arrive_whole_stops_the_training(tmp_path, request, change, complaint):
    file = tmp_path / 'drawn.pth'
    drawn_detector(file, TYPES, change)
    with pytest.raises(HandoverError, match=complaint):
        hand_over(
            detector(RESNET_TARGET, num_classes=1), tmp_path, request, load_from=file, cfg=run_of(('defect',))
        )


def test_a_head_changed_after_loading_stops_the_training(tmp_path, request):
    class Reinitialise(Hook):
        priority = 'HIGHEST'

        def before_train(self, runner):
            torch.nn.init.ones_(runner.model.roi_head.bbox_head.fc_cls.weight)

    file = tmp_path / 'drawn.pth'
    drawn_detector(file, TYPES)
    with pytest.raises(HandoverError, match=r'1 with other values \(roi_head\.bbox_head\.fc_cls\.weight\)'):
        hand_over(
            detector(RESNET_TARGET, num_classes=1),
            tmp_path,
            request,
            load_from=file,
            extra=[Reinitialise()],
            cfg=run_of(('defect',)),
        )
