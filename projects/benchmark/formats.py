"""Benchmark of file formats for packed radiographs: images read in random order per processor second.

    python -m projects.benchmark.formats ours
    python -m projects.benchmark.formats zarr lance webdataset

zarr, Lance and WebDataset are not among the project's dependencies. To run them, call this module from the
repository's root in a separate virtual environment with `pip install zarr==3.1.6 pylance==14.0.2
webdataset==1.0.2`.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

IMAGES, SIDE, ROUNDS, SEED = 512, 512, 7, 0

Reader = Callable[[np.ndarray], object]


def touch(image: np.ndarray) -> int:
    """Read 64 pixels, as a view reads part of an image; a checksum needs the whole image."""
    return int(image[::64, ::64].sum())


def ours(images: np.ndarray, folder: Path) -> Iterator[tuple[str, Reader]]:
    """Yield the name and the reader of our packed store, with its checksums and without."""
    import cv2

    from projects.radiograph.pack import pack
    from projects.radiograph.recipe import Recipe

    (folder / 'source').mkdir()
    for k, image in enumerate(images):
        cv2.imwrite(str(folder / 'source' / f'{k:05d}.png'), image)
    store, _ = pack(folder / 'source', folder / 'store', Recipe(SIDE))
    yield 'ours, CRC-32', lambda order: [touch(store.read(int(k))) for k in order]


def zarr(images: np.ndarray, folder: Path) -> Iterator[tuple[str, Reader]]:
    """Yield names and readers of two zarr arrays: an object per image, and shards of 128 images."""
    import zarr as library
    from zarr.codecs import Crc32cCodec

    for shard in (None, 128):
        array = library.create_array(
            str(folder / f'zarr{shard}'),
            shape=images.shape,
            chunks=(1, SIDE, SIDE),
            shards=shard and (shard, SIDE, SIDE),
            dtype='u1',
            compressors=[Crc32cCodec()],
            filters=None,
        )
        array[:] = images
        what = f'shards of {shard}' if shard else 'an object an image'
        yield f'zarr, {what}, CRC-32C', lambda order, a=array: [touch(a[int(k)]) for k in order]


def lance(images: np.ndarray, folder: Path) -> Iterator[tuple[str, Reader]]:
    """Yield the name and the reader of a Lance data set."""
    import lance as library
    import pyarrow

    pixels = pyarrow.array([image.tobytes() for image in images], pyarrow.large_binary())
    table = library.write_dataset(pyarrow.table(dict(pixels=pixels)), str(folder / 'lance'))

    def read(order: np.ndarray) -> None:
        for k in order:
            value = table.take([int(k)], columns=['pixels']).column('pixels')[0]
            touch(np.frombuffer(value.as_buffer(), np.uint8).reshape(SIDE, SIDE))

    yield 'Lance', read


def webdataset(images: np.ndarray, folder: Path) -> Iterator[tuple[str, Reader]]:
    """Yield the name and the reader of a WebDataset tar, which shuffles in a buffer."""
    import webdataset as library

    with library.TarWriter(str(folder / 'images.tar')) as writer:
        for k, image in enumerate(images):
            content = io.BytesIO()
            np.save(content, image)
            writer.write({'__key__': f'{k:05d}', 'npy': content.getvalue()})

    def read(order: np.ndarray) -> None:
        for sample in library.WebDataset(str(folder / 'images.tar'), shardshuffle=False).shuffle(64).decode():
            touch(sample['npy'])

    yield 'WebDataset', read


FORMATS = dict(ours=ours, zarr=zarr, lance=lance, webdataset=webdataset)


def main(names: list[str]) -> int:
    """Print the rate of each named format, the best of seven rounds."""
    if not names or not set(names) <= set(FORMATS):
        print(f'error: {names}: expected some of {list(FORMATS)}', file=sys.stderr)
        return 2
    rng = np.random.default_rng(SEED)
    images = rng.integers(0, 256, (IMAGES, SIDE, SIDE), np.uint8)
    order = rng.permutation(IMAGES)
    for name in names:
        try:
            with tempfile.TemporaryDirectory(prefix='formats-') as folder:
                _rate(FORMATS[name](images, Path(folder)), order)
        except ModuleNotFoundError as error:
            print(
                f'error: {name}: expected the package {error.name}; install it as the head of this file says',
                file=sys.stderr,
            )
            return 2
    return 0


def _rate(readers: Iterator[tuple[str, Reader]], order: np.ndarray) -> None:
    for what, read in readers:
        taken = []
        for _ in range(ROUNDS):
            start = time.process_time()
            read(order)
            taken.append(time.process_time() - start)
        print(f'{what:<40} {IMAGES / min(taken):8,.0f} images/s')


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
