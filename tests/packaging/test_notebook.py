"""The notebook of the docs, cell by cell in one process, from a user's folder."""

from __future__ import annotations

import json

from conftest import ROOT, run


def test_the_notebook_runs(mnist, tmp_path):
    cells = json.loads((ROOT / 'docs/notebook.ipynb').read_text())['cells']
    code = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
    (tmp_path / 'cells.py').write_text('\n\n'.join(code))
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/mnist5k').symlink_to(mnist)
    result = run(tmp_path / 'cells.py', cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert 'figure: work_dirs/notebook_student/lipschitz.png' in result.stdout
    folder = tmp_path / 'work_dirs/notebook_student'
    assert (folder / 'lipschitz.png').is_file()
    assert (folder / 'last_checkpoint').read_text().endswith('epoch_8.pth')  # six epochs, and two after resuming
