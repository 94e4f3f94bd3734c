import copy

import pytest
import torch

from projects.xray.hooks.channels_last import ChannelsLastHook, align, to_channels_last


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, stride=2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    )


def train(model, optimizer, steps):
    torch.manual_seed(1)
    losses = []
    for _ in range(steps):
        loss = model(torch.rand(6, 1, 12, 12).expand(-1, 3, -1, -1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def sgd(model, fused):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=fused)


def test_the_hook_changes_the_layout_and_nothing_else():
    class Runner:
        model = net()

    weights, values = list(Runner.model.parameters()), copy.deepcopy(Runner.model.state_dict())
    ChannelsLastHook().before_run(Runner)
    assert all(a is b for a, b in zip(Runner.model.parameters(), weights))
    assert Runner.model[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert not Runner.model[3].weight.is_contiguous()
    for name, value in Runner.model.state_dict().items():
        assert torch.equal(value, values[name])


def test_training_has_the_same_losses():
    plain, fast = net(), net()
    to_channels_last(fast)
    expected = train(plain, sgd(plain, False), 8)
    assert train(fast, sgd(fast, True), 8) == pytest.approx(expected, rel=1e-4)
    assert expected[-1] < expected[0]


@pytest.mark.parametrize(('before', 'after'), [(False, True), (True, False)])
def test_a_run_of_the_other_layout_is_taken_up(before, after):
    """Momentum of one layout meets weights of the other in the fused step, which reads memory in order."""

    def start(fast):
        model = net()
        if fast:
            to_channels_last(model)
        return model, sgd(model, True)

    model, optimizer = start(before)
    train(model, optimizer, 3)
    state = copy.deepcopy([model.state_dict(), optimizer.state_dict()])
    expected = train(model, optimizer, 3)
    resumed, optimizer = start(after)
    resumed.load_state_dict(state[0])
    optimizer.load_state_dict(state[1])
    align(optimizer)
    assert train(resumed, optimizer, 3) == pytest.approx(expected, rel=1e-4)
