"""Benchmark of the inspection page in Chromium: small pores at Fit, the next radiograph, painting.

Without arguments it uses drawn radiographs and a stand-in detector that takes no time.

Example:
    python -m projects.benchmark.page
    python -m projects.benchmark.page exported/castings archive
"""

import argparse
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from projects.arguments import one_line_for_bad_input
from projects.line.page.server import Session, build
from projects.line.runtime import Inspector, folder

from . import pores
from .stand_in import draw_files, for_size

SCREENS = ((1280, 800), (1920, 1080))  # px
# Times the whole painting: sampling the values on the screen, the image and the overlays.
PAINT = """async ([zoom, filter]) => {
  const {viewer} = await import('/static/main.js'), {tone} = await import('/static/tones.js');
  tone.filter = filter;
  if (zoom === 'fit') viewer.fit(); else viewer.zoomTo(zoom);
  const seconds = [];
  for (let k = 0; k < 9; k++) {
    const begin = performance.now();
    viewer.sampled = null; viewer.paint();
    seconds.push((performance.now() - begin) / 1000);
  }
  const {width, height} = viewer.image;
  return {seconds, width, height, screen: [viewer.canvas.width, viewer.canvas.height]};
}"""
FIRST = """async () => {
  const {page} = await import('/static/state.js'), {next} = await import('/static/opening.js');
  do await next(); while (!page.image);
}"""
NEXT = """async () => {
  const {page} = await import('/static/state.js'), {viewer} = await import('/static/main.js');
  const {next} = await import('/static/opening.js'), before = page.current.id, begin = performance.now();
  await next();
  viewer.paint();
  return page.current.id === before || !page.image ? null : (performance.now() - begin) / 1000;
}"""


@one_line_for_bad_input
def main(argv: list[str] | None = None) -> int:
    """Print the figures; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('model', nargs='?', help='folder written by tools/export.py; default: a stand-in')
    parser.add_argument('images', nargs='?', type=Path, help='folder of radiographs for the model')
    parser.add_argument('--next', type=int, default=10, metavar='N', help='radiographs that are opened (10)')
    parser.add_argument('--side', type=int, default=4096, metavar='PX', help='of a drawn radiograph (4096)')
    args = parser.parse_args(argv)
    if bool(args.model) != bool(args.images):
        parser.error('expected MODEL and IMAGES together, or neither')
    if args.images and not args.images.is_dir():
        parser.error(f'{args.images}: no such folder, expected an archive of radiographs')
    if args.model:
        folder.read(Path(args.model))  # before the pores, which take a minute
    browser = shutil.which('chromium') or shutil.which('google-chrome')
    if not browser:
        print('error: expected Chromium; install it (apt install chromium)', file=sys.stderr)
        return 2
    from playwright.sync_api import sync_playwright  # of the tests' environment

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as place:
        chromium = playwright.chromium.launch(executable_path=browser, args=['--no-sandbox'])
        print(f'Chromium {chromium.version}')
        for side in (3, 4):
            _pores(chromium, Path(place, f'pores-{side}'), side)
        model, images = args.model, args.images
        if not model:
            model = for_size(Path(place, 'model'), args.side, args.side)
            images = Path(place, 'archive')
            draw_files(images, args.side, args.side, args.next + 1)
        with closing(Session(Inspector(model), Path(place, 'out'), images)) as session:
            return _pace(chromium, session, args.next)


@contextmanager
def _page(chromium: Any, session: Session, screen: tuple[int, int]) -> Iterator[Any]:
    """Inspect a session's radiographs, serve its page, and open the page with the first radiograph."""
    import uvicorn

    for paths in session.folders().values():
        session.inspect_all([session.add(str(path.relative_to(session.root)), path) for path in paths])
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    server = uvicorn.Server(uvicorn.Config(build(session), log_level='error'))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    page = chromium.new_page(viewport=dict(zip(('width', 'height'), screen, strict=True)))
    try:
        page.goto(f'http://127.0.0.1:{listener.getsockname()[1]}/')
        page.wait_for_selector('html[data-ready]', state='attached')
        if any(item.state == 'found' for item in session.items.values()):
            page.evaluate(FIRST)
        yield page
    finally:
        page.close()
        server.should_exit = True
        thread.join(30)


def _pores(chromium: Any, place: Path, side: int) -> None:
    """Print how many pores of a film are visible on the canvas at Fit."""
    film, places = pores.film(side)
    (place / 'archive').mkdir(parents=True)
    cv2.imwrite(str(place / 'archive' / 'film.png'), film)
    inspector = Inspector(for_size(place / 'model', *pores.FILM), cache=False)
    with (
        closing(Session(inspector, place / 'out', place / 'archive')) as session,
        _page(chromium, session, SCREENS[0]) as page,
    ):
        seen = page.evaluate(pores.SEEN, [places, pores.contrast(film), pores.FILM])
        scale = page.evaluate("document.getElementById('scale').textContent")
        print(
            f'pores of {side} px in a film of {film.shape[1]} x {film.shape[0]} px at Fit ({scale}), on a '
            f'screen of {SCREENS[0][0]} px: {seen} of {len(places)} with half of their contrast or more'
        )


def _pace(chromium: Any, session: Session, count: int) -> int:
    """Print the times of the next radiograph and of painting; returns the exit code."""
    with _page(chromium, session, SCREENS[0]) as page:
        if all(item.state != 'found' for item in session.items.values()):
            print(f'error: {session.root}: expected radiographs that the detector takes', file=sys.stderr)
            return 1
        seconds = []
        for _ in range(count):
            time.sleep(1)  # an inspector looks at the radiograph; meanwhile the page fetches the next
            taken = page.evaluate(NEXT)
            if taken is not None:
                seconds.append(taken)
        if seconds:
            median, worst = np.median(seconds), max(seconds)
            print(f'next radiograph: {median:.3f} s (median of {len(seconds)}), {worst:.3f} s at most')
        for width, height in SCREENS:
            page.set_viewport_size(dict(width=width, height=height))
            page.wait_for_timeout(500)
            _paint(page)
    return 0


def _paint(page: Any) -> None:
    """Print how long painting takes at each zoom and filter, also in processor time."""
    devtools = page.context.new_cdp_session(page)
    devtools.send('Performance.enable')

    def used() -> float:
        metrics = devtools.send('Performance.getMetrics')['metrics']
        return next(float(row['value']) for row in metrics if row['name'] == 'ThreadTime')

    for zoom in ('fit', 0.5, 1, 2):
        for kind in ('none', 'highpass', 'local'):
            before = used()
            drawn = page.evaluate(PAINT, [zoom, kind])
            each = 1000 * (used() - before) / len(drawn['seconds'])
            size = f'{drawn["width"]} x {drawn["height"]} px on {drawn["screen"][0]} x {drawn["screen"][1]}'
            middle, worst = (1000 * value(drawn['seconds']) for value in (np.median, max))
            print(
                f'paint {size}, zoom {zoom}, filter {kind}: {middle:.0f} ms '
                f'(median of {len(drawn["seconds"])}), {worst:.0f} ms at most; processor time {each:.0f} ms'
            )


if __name__ == '__main__':
    sys.exit(main())
