"""Simulation of the hours and the cost of a pretraining on an archive, from measured rates.

All stages of the loader work at the same time, so the slowest stage sets the pace; the result names that
stage. The only assumption is that rates measured on a few images hold for many.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """Measured rates, and the prices of the machines.

    Attributes:
        decode: images per second that one core reads from the store and augments.
        cores: cores that load images, over all nodes.
        step: images per second that one accelerator trains.
        devices: accelerators, over all nodes.
        latency_s: seconds from a request to the first byte.
        bandwidth: bytes per second from the object store to one node.
        nodes: how many.
        readers: processes of a node that wait for blocks at the same time.
        image_bytes: bytes of a packed image.
        block_bytes: bytes of a request; `image_bytes` if each image is an object.
        device_hour: price of an accelerator for an hour.
        requests_price: price of a thousand GET requests.
    """

    decode: float
    cores: int
    step: float
    devices: int
    latency_s: float
    bandwidth: float
    nodes: int = 1
    readers: int = 8
    image_bytes: int = 512 * 512
    block_bytes: int = 16 * 2**20
    device_hour: float = 0.0
    requests_price: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """Time, requests and cost of a training.

    Attributes:
        stages: images per second of each stage alone, over all nodes.
        bottleneck: the slowest stage.
        hours: of the whole training.
        requests: GET requests in all.
        cost: price of devices and requests.
    """

    stages: dict[str, float]
    bottleneck: str
    hours: float
    requests: int
    cost: float


def forecast(rates: Rates, images: int, epochs: int, kept: bool = False) -> Forecast:
    """Compute the time, requests and cost of a training.

    Args:
        rates: the measured rates.
        images: size of the archive.
        epochs: passes over the archive.
        kept: whether the disks of the nodes hold the archive after the first epoch.
    """
    per_block = max(rates.block_bytes // rates.image_bytes, 1)
    block_s = rates.latency_s + per_block * rates.image_bytes / (rates.bandwidth / rates.readers)
    stages = {
        'decode': rates.decode * rates.cores,
        'object store': rates.nodes * rates.readers * per_block / block_s,
        'accelerator': rates.step * rates.devices,
    }
    fetched = 1 if kept else epochs
    local = min(value for name, value in stages.items() if name != 'object store')
    slowest = min(stages, key=lambda name: stages[name])
    seconds = images * (fetched / stages[slowest] + (epochs - fetched) / local)
    hours, requests = seconds / 3600, fetched * -(-images // per_block)
    cost = hours * rates.devices * rates.device_hour + requests / 1000 * rates.requests_price
    return Forecast(stages, slowest, hours, requests, cost)


def table(rates: Rates, archives: list[int], epochs: int, kept: bool) -> str:
    """Return a table of hours, requests, cost and bottleneck for archives of several sizes."""
    lines = [f'{"images":>14} {"hours":>12} {"requests":>16} {"cost":>14}  bottleneck']
    for images in archives:
        found = forecast(rates, images, epochs, kept)
        lines.append(
            f'{images:>14,} {found.hours:>12,.1f} {found.requests:>16,} {found.cost:>14,.2f}  '
            f'{found.bottleneck} ({found.stages[found.bottleneck]:,.0f} images/s)'
        )
    stages = forecast(rates, 1, epochs, kept).stages
    lines.append('alone: ' + ', '.join(f'{name} {value:,.0f} images/s' for name, value in stages.items()))
    return '\n'.join(lines)
