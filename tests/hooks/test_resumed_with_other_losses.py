"""A run that is resumed with other losses or taps: its log and its figures show those it has now."""

from __future__ import annotations

import copy
import json
import logging

import matplotlib.figure
import pytest
from short_run import distillation

from mmlckd.resumability import RunCheckHook

STAGES = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3']
KD = dict(type='mmlckd.LogitsKDLoss', taps=['head.fc'])
LOCAL = dict(type='mmlckd.LocalLipschitzKDLoss', taps=['head.fc'])
VIEW = dict(type='mmlckd.NoisyView')


def lipschitz(count):
    """The loss of the last stages: one pair fewer than stages."""
    return dict(type='mmlckd.LipschitzKDLoss', taps=STAGES[-count:])


CASES = {
    'fewer pairs': (dict(lipschitz=lipschitz(3), kd=KD), dict(lipschitz=lipschitz(2), kd=KD)),
    'more pairs': (dict(lipschitz=lipschitz(2), kd=KD), dict(lipschitz=lipschitz(3))),
    'no pairs before': (dict(kd=KD), dict(kd=KD, lipschitz=lipschitz(3))),
    'no pairs after': (dict(lipschitz=lipschitz(3), kd=KD), dict(kd=KD)),
    'local quotients after': (dict(lipschitz=lipschitz(3)), dict(local=LOCAL)),
    'local quotients before': (dict(local=LOCAL), dict(lipschitz=lipschitz(3))),
    'both, of one each': (dict(lipschitz=lipschitz(2), local=LOCAL), dict(lipschitz=lipschitz(3), local=LOCAL)),
}


def train(family, folder, losses, iters, **options):
    hooks = [RunCheckHook(), dict(type='mmlckd.SpectralNormHook', interval=1)]
    view = VIEW if 'local' in losses else None
    run = distillation(family, folder, hooks, iters=iters, losses=copy.deepcopy(losses), view=view, **options)
    run.train()
    return run


@pytest.fixture
def drawn(monkeypatch):
    """The lines of each figure, as (label, values), whose values are not of the zero line."""
    figures = []
    save = matplotlib.figure.Figure.savefig

    def keep(figure, path, **options):
        figures.append([line for axes in figure.axes for line in axes.lines if len(line.get_xdata()) > 2])
        save(figure, path, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, 'savefig', keep)
    return figures


@pytest.mark.parametrize('before, after', CASES.values(), ids=CASES)
def test_log_and_figure_are_of_the_present_losses(classification, tmp_path, monkeypatch, drawn, before, after):
    heard = []
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # MMEngine waits two seconds where the data begin again
    train(classification, tmp_path, before, iters=3)
    drawn.clear()
    monkeypatch.setattr(
        logging.Logger, 'handle', lambda self, record: heard.append(record.getMessage()) if record.levelno >= 30 else 0
    )
    run = train(classification, tmp_path, after, iters=6, resume=tmp_path / 'iter_3.pth')
    assert run.iter == 6
    readings = json.loads((tmp_path / 'lipschitz.json').read_text())
    last = readings[-1]
    sides = {name: len(values) for name, values in last.items() if name != 'iter'}
    logged = {key.removeprefix('train/') for key in run.message_hub.log_scalars}
    assert {key for key in logged if key.startswith('distiller.loss_')} == {f'distiller.loss_{name}' for name in after}
    if 'lipschitz' in after or 'local' in after:
        expected = {f'lipschitz/{name}_{k}' for name, count in sides.items() for k in range(count)}
        assert {key for key in logged if key.startswith('lipschitz/')} == expected
        (lines,) = drawn  # for each column the teacher's and the student's values, and their logarithm
        columns = sides.get('student', 0) + sides.get('local_student', 0)
        assert len(lines) == 3 * columns
        for line in lines:
            assert len(line.get_ydata()) == len(readings)
            assert line.get_ydata()[-1] == line.get_ydata()[-1]  # no NaN: the last reading is there
    others = [text for text in heard if 'are of other losses or taps' in text]
    began = {name: len(readings[0].get(name, ())) for name in ('student', 'local_student')}
    changed = any(count != sides.get(name, 0) for name, count in began.items() if count)
    assert len(others) == (1 if changed and sides else 0)
    if others:
        assert others[0].startswith('the readings at iterations 1 to 3 are of other losses or taps than the last one')


def test_the_same_losses_draw_every_reading(classification, tmp_path, monkeypatch, drawn):
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    losses = dict(lipschitz=lipschitz(3), local=LOCAL)
    train(classification, tmp_path, losses, iters=3)
    drawn.clear()
    train(classification, tmp_path, losses, iters=6, resume=tmp_path / 'iter_3.pth')
    (lines,) = drawn
    for line in lines:
        values = line.get_ydata()
        assert len(values) == 6 and (values == values).all()
