"""The page on losses: its example runs as it stands, and its tables name what there is."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config

from mmlckd import losses
from mmlckd.config import bare_model
from mmlckd.registry import MODELS

PAGE = (ROOT / 'docs' / 'add_your_own_loss.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
FILES = {match[1]: block for block in BLOCKS if (match := re.match(r'# (\S+\.py)\n', block))}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with the page's files, from which Python imports; configs are found as from the repository's root."""
    folder = tmp_path_factory.mktemp('example')
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / 'configs').symlink_to(ROOT / 'configs')
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in ('my_losses', 'test_my_losses'):
        sys.modules.pop(name, None)
    MODELS.module_dict.pop('CosineLoss', None)


def test_the_page_has_the_three_files():
    assert list(FILES) == ['my_losses.py', 'my_recipe.py', 'test_my_losses.py']
    lines = [line for line in FILES['my_losses.py'].splitlines() if line.strip()]
    assert len(lines) <= 20


def test_the_pages_own_tests_pass(folder):
    module = __import__('test_my_losses')
    tests = [value for name, value in vars(module).items() if name.startswith('test_')]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_recipe_trains_the_student(folder, monkeypatch, classification):
    monkeypatch.chdir(folder)
    config = Config.fromfile('my_recipe.py')
    config.model.teacher.checkpoint = None
    model = MODELS.build(dict(config.model, data_preprocessor=bare_model(config).get('data_preprocessor'))).train()
    assert [entry.name for entry in model.distiller.entries] == ['kd', 'local', 'cosine']
    batch = dict(inputs=torch.randn(2, 3, 28, 28), data_samples=classification.batch['data_samples'])
    value = model(**batch, mode='loss')['distiller.loss_cosine']
    value.backward()
    # a weight of 0.5, and two taps with one minus a cosine each, which is at most 2
    assert 0 < value.item() < 0.5 * 2 * 2
    assert model.backbone.layer3[0].bn1.weight.grad.abs().sum() > 0


def test_the_snippet_of_an_outside_loss_builds():
    (snippet,) = [block for block in BLOCKS if 'EachMapLoss' in block]
    scope = {}
    exec(snippet, scope)
    cfg = dict(scope['losses']['smooth'])
    assert cfg.pop('taps') and cfg.pop('connectors')
    assert isinstance(MODELS.build(cfg), losses.EachMapLoss)


def test_the_table_names_every_loss():
    table = PAGE.partition('## The losses there are')[2].partition('\n## ')[0]
    named = re.findall(r'^\| `(\w+)` \|', table, re.MULTILINE)
    assert sorted(named) == sorted(set(losses.__all__) - {'DistillationLoss', 'MapwiseLoss'})
    for row in re.findall(r'^\| `\w+` \|.*$', table, re.MULTILINE):
        assert row.count('|') == 5


def test_the_contract_names_what_the_base_class_has():
    table = PAGE.partition('## The contract')[2].partition('\n## ')[0]
    members = re.findall(r'^\| `(\w+)', table, re.MULTILINE)
    base = losses.DistillationLoss
    own = {name for name in vars(base) if not name.startswith('_')} - {'forward', 'extra_repr'}
    assert sorted(members) == sorted({*own, 'loss_weight', 'left_out'})
    assert all(hasattr(base(), member) for member in members)


def test_the_files_it_names_exist():
    for path in re.findall(r'`((?:mmlckd|tests|tools|configs)/[\w./-]+)`', PAGE):
        assert '<' in path or (ROOT / path).exists(), path
