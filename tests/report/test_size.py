"""The evidence of a large test set fits into memory."""

import json
import subprocess
import sys

import numpy as np
import pytest

MEASURE = """
import sys
from pathlib import Path
from types import SimpleNamespace
import resource
from projects.benchmark.memory import peak_memory
from projects.report.measured import Settings, measure_run
from projects.report.predictions import read_predictions
predictions = read_predictions(Path(sys.argv[1]))
run = SimpleNamespace(predictions=predictions, val=None, result=dict(metrics=dict(AP50=0)), exported=None)
measured = measure_run(run, Settings())
usage = resource.getrusage(resource.RUSAGE_SELF)
print(len(measured.matched), peak_memory(), round(usage.ru_utime + usage.ru_stime))
"""


@pytest.mark.long
def test_fifty_thousand_images_of_a_hundred_detections_take_less_than_a_gigabyte(tmp_path, repo):
    images, each = 50_000, 100
    generator = np.random.default_rng(0)
    truth = dict(
        images=[dict(id=i, file_name=f'{i}.png', part=f'p{i // 2}') for i in range(images)],
        annotations=[
            dict(id=k, image_id=k // 3, category_id=1 + k % 2, bbox=box, area=900)
            for k, box in enumerate(generator.uniform(5, 300, (3 * images, 4)).tolist())
        ],
        categories=[dict(id=1, name='critical'), dict(id=2, name='minor')],
    )
    head = dict(task='detection', classes=['critical', 'minor'], truth=truth)
    tail = dict(ann_file='test.json', sha256='', folder='', window={}, checkpoint='')
    with (tmp_path / 'predictions.json').open('w') as file:
        file.write(json.dumps(head)[:-1] + ', "detections": [')
        for i in range(images):
            found = [
                dict(image_id=i, category_id=int(label), bbox=box.tolist(), score=float(score))
                for label, box, score in zip(
                    generator.integers(1, 3, each),
                    generator.uniform(5, 900, (each, 4)),
                    generator.random(each),
                )
            ]
            file.write((', ' if i else '') + json.dumps(found)[1:-1])
        file.write('], ' + json.dumps(tail)[1:])
    command = [sys.executable, '-c', MEASURE, str(tmp_path)]
    printed = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=True).stdout.split()
    assert int(printed[0]) == images
    print(f'{int(printed[1]) / 1e9:.2f} GB, {printed[2]} s of CPU')
    assert int(printed[1]) < 1e9, f'{int(printed[1]) / 1e9:.2f} GB'
