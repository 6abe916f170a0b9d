"""Every config builds, and names in other packages resolve."""

from __future__ import annotations

import pytest
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmlckd.config import bare_model, is_distiller, read_config
from mmlckd.registry import MODELS
from mmlckd.taps import dry_run

CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ('lckd', 'baselines', 'teachers', 'demo')
    for path in (ROOT / 'configs' / folder).glob('*.py')
)


@pytest.mark.parametrize('path', CONFIGS)
def test_builds_and_survives_a_dump(path, tmp_path):
    config = read_config(path)
    init_default_scope(config.default_scope)
    __import__(f'{config.default_scope}.models')
    model = dict(
        config.model, **({'data_preprocessor': config.data_preprocessor} if 'data_preprocessor' in config else {})
    )
    built = MODELS.build(model)
    config.dump(tmp_path / 'dumped.py')
    again = Config.fromfile(tmp_path / 'dumped.py')
    assert again.model == config.model
    if is_distiller(config.model):
        run = dry_run(built, built.distiller.student_taps, None, 'student', trained=True)
        assert not run.frozen  # a map below which all is frozen teaches the student nothing
        student = MODELS.build(bare_model(config))
        assert set(student.state_dict()) == {key for key in built.state_dict() if not key.startswith('distiller.')}


@pytest.mark.parametrize(
    'name',
    [
        'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
        'mmseg::_base_/models/deeplabv3plus_r50-d8.py',
        'mmpretrain::resnet/resnet18_8xb32_in1k.py',
    ],
)
def test_other_packages_resolve_as_config_and_as_base(name, tmp_path):
    assert 'backbone' in read_config(name).model
    (tmp_path / 'delta.py').write_text(f'_base_ = {name!r}\n')
    inherited = read_config(str(tmp_path / 'delta.py')).model
    assert inherited.pop('_scope_') == name.split('::')[0]  # MMEngine notes where an inherited model comes from
    assert inherited.backbone.depth == read_config(name).model.backbone.depth
