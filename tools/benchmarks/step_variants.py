"""The variants of a distillation step that are timed, and what else is measured of them."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from unittest import mock

import torch
from measure import in_turns, ratios, summary
from workloads import build

from mmlckd.analysis import LayerNorms
from mmlckd.distillers import LipschitzDistiller
from mmlckd.hooks.loss_statistics import read_statistics
from mmlckd.losses import LipschitzKDLoss
from mmlckd.registry import MODELS
from mmlckd.taps import FeatureTap

PLAIN, THROUGH = 'Lipschitz alone, no connectors', 'Lipschitz alone, through connectors'
REDUCED, NAIVE = 'ours, teacher in half precision', 'naive'
GUIDED = 'ours with a second view'


def naive_teacher(teacher, inputs, data_samples):
    """Run the teacher as general-purpose wrappers do: through its heads and losses."""
    with torch.no_grad(), FeatureTap(teacher.model, teacher.taps, copy=teacher.overwritten) as feats:
        teacher.model(teacher.adapter(inputs, data_samples), data_samples, mode='loss')
    return feats


def guided(config, model):
    """The same recipe with a second view, compared at the logits; in detection at the deepest connected maps."""
    entry = model.distiller.entries[-1]
    deepest = dict(student=[entry.student_taps[-1]], teacher=[entry.teacher_taps[-1]])
    taps = dict(taps=deepest, connectors=True) if hasattr(model, 'roi_head') else dict(taps='logits')
    local = dict(type='mmlckd.LocalLipschitzKDLoss', **taps)
    other = build(dict(config, view=dict(type='mmlckd.MixedView'), losses=dict(config['losses'], local=local)))
    other.load_state_dict(model.state_dict(), strict=False)  # a detector's cost depends on what it proposes
    for one, teacher in other.distiller.teachers.items():
        teacher.model.load_state_dict(model.distiller.teachers[one].model.state_dict())
    return other


def updates(model):
    """A function that does one optimizer step on losses of the model."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def update(losses):
        loss, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return update


def step_of(model, data):
    """A function that does one optimizer step of a model."""
    update = updates(model)
    return lambda: update(model(data['inputs'], data['data_samples'], mode='loss'))


def variants(model, data, reduced):
    """For each variant, by name, a function that does one optimizer step of it."""
    update = updates(model)
    inputs, samples = data['inputs'], data['data_samples']

    def step(forward=model, before=None, **changed):
        with mock.patch.multiple(model.distiller, **{'entries': model.distiller.entries, **changed}):
            if before is not None:
                before(inputs, samples)
            losses = forward(inputs, samples, mode='loss')
        update(losses)

    through = [
        replace(entry, max_share=None) for entry in model.distiller.entries if isinstance(entry.loss, LipschitzKDLoss)
    ]
    plain = [replace(entry, connectors=None) for entry in through]
    alone = super(LipschitzDistiller, model).forward  # the student's own
    functions = {
        'student alone': partial(step, alone),
        'floor': partial(step, alone, model.distiller.teacher),
        PLAIN: partial(step, entries=plain),
        THROUGH: partial(step, entries=through),
        'ours': step,
    }
    for entry in model.distiller.entries:
        functions[f'ours without {entry.name}'] = partial(
            step, entries=[other for other in model.distiller.entries if other is not entry]
        )
    functions[REDUCED] = partial(step, teachers=dict(teacher=reduced))
    functions[NAIVE] = partial(step, teachers=dict(teacher=partial(naive_teacher, model.distiller.teacher)))
    return functions


def reduced_teacher(config, teacher, device):
    """The same teacher at half precision."""
    precision = 'fp16' if torch.device(device).type == 'cuda' else 'bf16'
    other = build(dict(config, teacher=dict(config['teacher'], precision=precision))).to(device).distiller.teacher
    other.model.load_state_dict(teacher.model.state_dict())
    return other


def half_precision_error(model, data, reduced):
    """Largest relative change of a pair's mean teacher norm when the teacher runs at half precision."""
    readings = []
    for teacher in (model.distiller.teacher, reduced):
        with mock.patch.object(model.distiller, 'teachers', dict(teacher=teacher)), torch.no_grad():
            model(data['inputs'], data['data_samples'], mode='loss')
        readings.append(read_statistics(model)['teacher'])
    return max(abs(half / full - 1) for full, half in zip(*readings))


def reading(model, data):
    """A function that does what a reading of SpectralNormHook does, with all layers of the student."""
    norms = LayerNorms(model, '')
    with norms.watch():
        model(data['inputs'], data['data_samples'], mode='loss')

    def read():
        read_statistics(model)
        norms.measure(num_iters=2).tolist()

    return read


def start_up(config, console):
    """Seconds to build the distiller with its teacher's weights from a file, and to build and load both networks."""
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/teacher.pth'
        torch.save(dict(state_dict=MODELS.build(config['teacher']['model']).state_dict()), path)
        given = dict(config, teacher=dict(config['teacher'], checkpoint=path))

        def both():
            preprocessor = config['student'].get('data_preprocessor', config['data_preprocessor'])
            build(dict(config['student'], data_preprocessor=preprocessor))
            MODELS.build(config['teacher']['model']).load_state_dict(torch.load(path, weights_only=True)['state_dict'])

        times = in_turns(dict(ours=lambda: build(given), both=both), 5, 'cpu', 'start-up', console)
    return dict(
        seconds=summary(times['ours'])['median'] / 1000,
        both=summary(times['both'])['median'] / 1000,
        ratio=ratios(times, 'ours', 'both')['median'],
    )
