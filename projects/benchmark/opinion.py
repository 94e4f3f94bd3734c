"""Benchmark of the second opinion on flaw types that no training has seen: AUROC and flag rates.

Without a checkpoint the backbone keeps the config's initial weights (ImageNet), so no training has seen a
flaw of the data set. To leave one type out of a training instead, write its data and train first:
    python -m projects.benchmark.opinion without crack data/synthetic data/synthetic-without-crack
    python tools/train.py CONFIG --cfg-options …data_root=data/synthetic-without-crack
In both cases:
    python -m projects.benchmark.opinion measure CONFIG data/synthetic [--checkpoint FILE]
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from projects.arguments import one_line_for_bad_input
from projects.errors import UsageError

from .splits import truth_of


@one_line_for_bad_input
def main(argv: list[str] | None = None) -> int:
    """Write the data or print the figures; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    without = commands.add_parser(
        'without', help='leave the radiographs with one flaw type out of train and val'
    )
    without.add_argument('type', help='name of its category')
    without.add_argument('data', type=Path, help='folder of train.json, val.json, test.json and images/')
    without.add_argument('out', type=Path, help='folder to write')
    measured = commands.add_parser('measure', help='print AUROC and flag rates on test')
    measured.add_argument('config', help='detector config')
    measured.add_argument('data', type=Path, help='folder of train.json, val.json, test.json and images/')
    measured.add_argument('--checkpoint', help='weights; default: initial ones of the config')
    args = parser.parse_args(argv)
    if args.command == 'without':
        return leave_out(args.type, args.data, args.out)
    return measure(args.config, args.checkpoint, args.data)


def leave_out(kind: str, data: Path, out: Path) -> int:
    """Write train and val without the radiographs that show a flaw type; test and images are linked."""
    if out.exists():
        raise UsageError(f'{out}: is there already; give another folder')
    truths = {split: truth_of(data / f'{split}.json') for split in ('train', 'val')}
    numbers = {
        split: {category['name']: category['id'] for category in truth['categories']}
        for split, truth in truths.items()
    }
    for split, known in numbers.items():
        if kind not in known:
            raise UsageError(
                f'{data / split}.json: no type {kind!r}, expected one of its categories: {", ".join(known)}'
            )
    out.mkdir(parents=True)
    for split, content in truths.items():
        number = numbers[split][kind]
        shown = {a['image_id'] for a in content['annotations'] if a['category_id'] == number}
        content['images'] = [image for image in content['images'] if image['id'] not in shown]
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] not in shown]
        (out / f'{split}.json').write_text(json.dumps(content))
        print(f'{split}: {len(shown)} radiographs left out, {len(content["images"])} kept')
    for name in ('test.json', 'images'):
        (out / name).symlink_to((data / name).resolve())
    return 0


def read(data: Path, split: str) -> tuple[list[str], dict[str, Any]]:
    """Return the image files of a split and its annotations, a COCO dict."""
    truth = truth_of(data / f'{split}.json')
    return [str(data / 'images' / image['file_name']) for image in truth['images']], truth


def measure(config: str, checkpoint: str | None, data: Path) -> int:
    """Print AUROC and flag rates."""
    from projects.line.export.detector import Radiographs, _build, describe, load_detector
    from projects.line.export.graphs import torch_engine
    from projects.line.export.memory import flagging_score
    from projects.line.export.opinion import PatchFeatures, memory_of, score_of, sound_of
    from projects.line.export.traceable import TraceableDetector
    from projects.line.runtime import Inspector
    from projects.radiograph.parts import recorded_part
    from projects.runs.running import read_config

    splits = [read(data, split) for split in ('train', 'val', 'test')]  # before the libraries take seconds
    cfg = read_config(config)
    if checkpoint:
        detector = load_detector(cfg, checkpoint)
    else:
        detector = _build(cfg)
        detector.init_weights()
    train, val, test = (Radiographs(*split) for split in splits)
    exported = describe(cfg, checkpoint, detector.eval(), val.sizes())
    whole = TraceableDetector(detector, exported.input).eval()
    inspector = Inspector.of(exported, torch_engine(whole))
    net = PatchFeatures(whole).eval()

    def features(image: np.ndarray) -> tuple[np.ndarray]:
        import torch

        with torch.no_grad():
            return (net(torch.from_numpy(image)).numpy(),)

    memory = memory_of(features, inspector, sound_of(train).paths)
    held = sound_of(val)
    scores = [score_of(features, memory, inspector, path) for path in held.paths]
    rule = flagging_score(scores, [recorded_part(image) for image in held.truth['images']])
    scores = np.array([score_of(features, memory, inspector, path) for path in test.paths])
    show(test.truth, scores, rule, len(sound_of(train).paths))
    return 0


def show(truth: dict[str, Any], scores: np.ndarray, rule: dict[str, Any], learnt: int) -> None:
    """Print a row for each flaw type and one for any flaw."""
    ids = [image['id'] for image in truth['images']]
    types: dict[str, set[int]] = {category['name']: set() for category in truth['categories']}
    names = {category['id']: category['name'] for category in truth['categories']}
    for annotation in truth['annotations']:
        types[names[annotation['category_id']]].add(annotation['image_id'])
    flawed = set().union(*types.values())
    sound = scores[[k for k, number in enumerate(ids) if number not in flawed]]
    above = float((sound > rule['threshold']).mean())
    print(
        f'{learnt} sound radiographs learnt; threshold {rule["threshold"]:.4g}: {rule["flagged"]} of '
        f'{rule["sound"]} held-out sound parts flagged, at most {rule["upper"]:.1%}; of {len(sound)} sound '
        f'test radiographs {above:.1%}'
    )
    print('type | radiographs | AUROC | flagged')
    for name, shown in dict(sorted(types.items()), **{'any': flawed}).items():
        own = scores[[k for k, number in enumerate(ids) if number in shown]]
        if len(own):
            print(f'{name} | {len(own)} | {auroc(own, sound):.3f} | {(own > rule["threshold"]).mean():.1%}')


def auroc(flawed: np.ndarray, sound: np.ndarray) -> float:
    """Return the share of pairs in which the flawed radiograph has the higher score; ties count half."""
    higher = (flawed[:, None] > sound).mean() + (flawed[:, None] == sound).mean() / 2
    return float(higher)


if __name__ == '__main__':
    sys.exit(main())
