"""Draw the images of a data set after each transform, with boxes and masks, as the model sees them.

Each split gives one PNG with a row per image (or per view) and a column per transform. The last column shows
the output of the model's data preprocessor. Images have one channel and are windowed, as in the model's
input.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402

SPLITS = ('train', 'val', 'test')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits 2 on wrong use."""
    parser = ToolParser(
        description=__doc__,
        epilog='example:\n  python tools/browse_dataset.py '
        'configs/simsiam/simsiam_resnet50_4xb64-coslr-100e_castings-b-224px.py --out seen',
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for the PNG files')
    parser.add_argument(
        '--split', nargs='+', choices=SPLITS, help='splits to draw (default: all of the config)'
    )
    parser.add_argument('--num', type=int, default=6, metavar='N', help='images of each split (default 6)')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        metavar='N',
        help='seed of the choice of images and of the augmentations',
    )
    parser.add_argument('--cfg-options', nargs='+', metavar='K=V', help='override config values')
    args = parser.parse_args(argv)
    parser.check_range('num', args.num, 1, 100)
    parser.check_range('seed', args.seed, 0, 2**31 - 1)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    # The libraries take seconds to import; --help and wrong use do not need them.
    from projects.runs import running

    return running.one_line_errors(lambda _: browse(args, running))(argv)


def browse(args: argparse.Namespace, running: ModuleType) -> int:
    """Draw the sheets of a config and print their paths."""
    import numpy as np
    from mmengine.registry import DATASETS, DefaultScope

    from projects.config.configs import leaves
    from projects.prepare import browse as browsing
    from projects.xray import datasets

    cfg = running.read_config(args.config, args.cfg_options)
    splits = args.split or [split for split in SPLITS if cfg.get(f'{split}_dataloader')]
    missing = [split for split in splits if not cfg.get(f'{split}_dataloader')]
    if missing or not splits:
        names = ', '.join(f'{split}_dataloader' for split in missing or SPLITS)
        raise running.UsageError(f'{args.config}: no {names}; name an experiment, or another --split')
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise running.UsageError(f'{args.out}: expected a folder to write ({error.strerror})') from None
    for split in splits:
        loader = cfg[f'{split}_dataloader']
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            preprocess = preprocessing(cfg, loader, training=split == 'train')
            for number, config in enumerate(leaves(loader['dataset']), 1):
                with datasets.quiet():
                    dataset = DATASETS.build(config)
                    dataset.full_init()
                recorder = browsing.Recorder(dataset, config.get('pipeline') or [], preprocess)
                count = min(args.num, len(dataset))
                chosen = np.random.default_rng(args.seed).choice(len(dataset), count, replace=False)
                found = [recorder.run(int(i), args.seed + k) for k, i in enumerate(sorted(chosen))]
                items = [item for item in found if item]
                title = f'{Path(args.config).stem}   {split}, {len(items)} of {len(dataset)} images'
                path = args.out / f'{split}{"" if number == 1 else f"-{number}"}.png'
                browsing.draw_sheet(recorder, items, title).save(path)
                print(path)
    return 0


def preprocessing(cfg: Mapping, loader: Mapping, training: bool) -> Callable[[dict], dict] | None:
    """Return a function from a packed item to the model's input; None if the config has no preprocessor."""
    from mmengine.registry import FUNCTIONS, MODELS

    config = (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    if 'type' not in config:
        return None
    preprocessor = MODELS.build(config)
    collate = FUNCTIONS.get((loader.get('collate_fn') or dict(type='pseudo_collate'))['type'])

    def preprocess(packed: dict) -> dict:
        out = preprocessor(collate([packed]), training)
        mean, std = (float(getattr(preprocessor, name).flatten()[0]) for name in ('mean', 'std'))
        return dict(inputs=out['inputs'], data_samples=out.get('data_samples'), mean=mean, std=std)

    return preprocess


if __name__ == '__main__':
    sys.exit(main())
