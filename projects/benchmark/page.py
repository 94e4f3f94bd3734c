"""How fast the inspection page is in Chromium: the next radiograph, and painting at each zoom and filter.

Example:
    python -m projects.benchmark.page exported/castings archive
"""

import argparse
import shutil
import socket
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from projects.line.page.server import Session, build
from projects.line.runtime import Inspector

PAINT = """async ([zoom, filter]) => {
  const {viewer} = await import('/static/main.js'), {tone} = await import('/static/tones.js');
  tone.filter = filter;
  if (zoom === 'fit') viewer.fit(); else viewer.zoomTo(zoom);
  const seconds = [];
  for (let k = 0; k < 9; k++) { viewer.sampled = null; viewer.paint(); seconds.push(viewer.seconds); }
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


def main(argv: list[str] | None = None) -> int:
    """Print the times; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('model', help='folder that tools/export.py wrote')
    parser.add_argument('images', type=Path, help='archive of radiographs that it takes')
    parser.add_argument('--next', type=int, default=20, metavar='N', help='radiographs that are opened (20)')
    args = parser.parse_args(argv)
    browser = shutil.which('chromium') or shutil.which('google-chrome')
    if not browser:
        print('error: expected Chromium; install it (apt install chromium)', file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory() as out,
        closing(Session(Inspector(args.model), Path(out), args.images)) as session,
    ):
        return _measure(session, browser, args.next)


def _measure(session: Session, browser: str, count: int) -> int:
    import uvicorn  # with Playwright: what only this needs
    from playwright.sync_api import sync_playwright

    for folder in session.folders().values():
        session.inspect_all([session.add(str(path.relative_to(session.root)), path) for path in folder])
    if all(item.state != 'found' for item in session.items.values()):
        print(f'error: {session.root}: expected radiographs that the detector takes', file=sys.stderr)
        return 1
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    server = uvicorn.Server(uvicorn.Config(build(session), log_level='error'))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=['--no-sandbox'])
            page = chromium.new_page(viewport=dict(width=1280, height=800))
            page.goto(f'http://127.0.0.1:{listener.getsockname()[1]}/')
            page.wait_for_selector('html[data-ready]', state='attached')
            page.evaluate(FIRST)
            _tell(page, count)
            chromium.close()
    finally:
        server.should_exit = True
        thread.join(30)
    return 0


def _tell(page, count: int) -> None:
    seconds = []
    for _ in range(count):
        time.sleep(1)  # an inspector looks at each; meanwhile the next is fetched
        taken = page.evaluate(NEXT)
        if taken is not None:
            seconds.append(taken)
    if seconds:
        median, worst = np.median(seconds), max(seconds)
        print(f'next radiograph: {median:.3f} s (median of {len(seconds)}), {worst:.3f} s at most')
    for zoom in ('fit', 0.5, 1, 2):
        for kind in ('none', 'highpass', 'local'):
            said = page.evaluate(PAINT, [zoom, kind])
            size = f'{said["width"]} x {said["height"]} px on {said["screen"][0]} x {said["screen"][1]}'
            print(f'paint {size}, zoom {zoom}, filter {kind}: {1000 * np.median(said["seconds"]):.0f} ms')


if __name__ == '__main__':
    sys.exit(main())
