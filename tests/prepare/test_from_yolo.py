"""docs/from-yolo.md: its lines print what it says."""

import re
import subprocess
import sys


def test_the_lines_print_what_stands_beside_them(repo, tmp_path):
    text = (repo / 'docs/from-yolo.md').read_text()
    code = '\n'.join(re.findall(r'```python\n(.*?)```', text, re.DOTALL))
    told = re.findall(r'print\(.*# (\S+)$', code, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, '-c', f'import sys; sys.path.insert(0, {str(repo)!r})\n{code}'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == told == ['99.6%', '256', '65536']
