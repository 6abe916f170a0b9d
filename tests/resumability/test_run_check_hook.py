"""What a run is refused for once it is built; through the tools it is tests/test_wrong_input.py's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from mmengine.optim import CosineAnnealingLR, MultiStepLR, OptimWrapper, OptimWrapperDict
from short_run import training
from torch import nn

from mmlckd.resumability import RunCheckHook, run_check_hook


class Network(nn.Module):
    def __init__(self, classes=3, backbone=4):
        super().__init__()
        self.backbone, self.head, self.rpn_head = (
            nn.Linear(2, backbone),
            nn.Linear(backbone, classes),
            nn.Linear(backbone, 1),
        )
        self.head.num_classes, self.rpn_head.num_classes = classes, 1


class Data(list):
    def __init__(self, length=5, classes=None):
        super().__init__(range(length))
        self.metainfo = dict(classes=classes)


def runner(model, data=None, optimizer=torch.optim.SGD, folder=None, **config):
    optim_wrapper = OptimWrapper(optimizer(model.parameters(), lr=0.1))
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=data))
    return SimpleNamespace(
        model=model,
        cfg=Config(config),
        optim_wrapper=optim_wrapper,
        param_schedulers=None,
        train_loop=loop,
        val_loop=None,
        work_dir=folder,
        epoch=0,
        iter=0,
    )


def checkpoint(model, optimizer=torch.optim.SGD):
    return dict(
        state_dict=model.state_dict(),
        meta=dict(epoch=1, iter=4),
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
        optimizer=optimizer(model.parameters(), lr=0.1).state_dict(),
    )


def test_sound_data_passes(tmp_path):
    RunCheckHook().before_train(runner(Network(), Data(classes=('a', 'b', 'c')), folder=tmp_path))
    RunCheckHook().before_train(runner(Network(), Data(), folder=tmp_path))  # classes that nobody named


@pytest.mark.parametrize(
    'data, sentence',
    [
        (Data(0), 'train_dataloader.dataset has no samples'),
        (Data(classes=('a', 'b')), 'train_dataloader.dataset has 2 classes and head.num_classes is 3'),
    ],
)
def test_data(data, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        RunCheckHook().before_train(runner(Network(), data, folder=tmp_path))


def test_finetuning_with_a_new_head_is_no_mistake():
    hook = RunCheckHook()
    hook.after_load_checkpoint(runner(Network(classes=7), load_from='a.pth'), checkpoint(Network()))
    hook.after_load_checkpoint(
        runner(Network(), load_from='a.pth'), {'extra': torch.zeros(1), 'backbone.weight': torch.zeros(4, 2)}
    )
    with pytest.raises(
        ValueError, match="load_from is 'a.pth', which does not fit Network: its keys do not match, 6 missing"
    ):
        hook.after_load_checkpoint(runner(Network(), load_from='a.pth'), dict(state_dict=dict(weight=torch.zeros(1))))


def test_processes_that_begin_at_different_places_are_refused(tmp_path, monkeypatch):
    """As on two machines, of which each looks into a work folder of its own."""
    monkeypatch.setattr(run_check_hook, 'all_gather_object', lambda place: [place, (40, 4000)])
    with pytest.raises(ValueError, match='rank 0 at iteration 0, rank 1 at iteration 4000'):
        RunCheckHook().before_train(runner(Network(), Data(), folder=tmp_path))


class Warm(list):
    """A runner's schedulers, of an optimizer with a rate of 0.1."""

    def __init__(self, network, *kinds, lr=0.1):
        wrapper = OptimWrapper(torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9))
        super().__init__(kind(wrapper, **options) for kind, options in kinds)
        self.wrapper = wrapper


def resumed(present, saved):
    run = runner(Network(), load_from='a.pth', resume=True)
    run.optim_wrapper, run.param_schedulers = present.wrapper, list(present)
    saved.wrapper.param_groups[0]['lr'] = 0.001  # schedules have moved it
    states = [scheduler.state_dict() for scheduler in saved]
    content = dict(checkpoint(Network()), optimizer=saved.wrapper.state_dict(), param_schedulers=states)
    RunCheckHook().after_load_checkpoint(run, content)


STEPS = MultiStepLR, dict(milestones=[100, 150])


@pytest.mark.parametrize(
    'present, said',
    [
        (dict(kinds=[STEPS]), None),
        (dict(kinds=[STEPS], lr=0.01), ['initial_lr=0.1, not 0.01']),
        (
            dict(kinds=[(MultiStepLR, dict(milestones=[60, 80], gamma=0.5))]),
            ['MultiStepLR.milestones=Counter({100: 1, 150: 1}), not Counter({60: 1, 80: 1})', 'gamma=0.1, not 0.5'],
        ),
        (dict(kinds=[(MultiStepLR, dict(milestones=[100, 150], end=7))]), ['MultiStepLR.end=1000000000, not 7']),
    ],
)
def test_settings_that_a_resumed_run_does_not_take_are_said(present, said, monkeypatch):
    heard = []
    monkeypatch.setattr(run_check_hook, 'print_log', lambda text, *_: heard.append(text))
    network = Network()
    resumed(Warm(network, *present.pop('kinds'), **present), Warm(network, STEPS))
    assert len(heard) == bool(said) and all(part in heard[0] for part in said or ())


def test_another_number_of_schedules_is_refused():
    network = Network()
    with pytest.raises(ValueError, match='its param_schedulers are 1, and 2 are there now'):
        resumed(Warm(network, STEPS, (CosineAnnealingLR, dict(T_max=9))), Warm(network, STEPS))


def test_what_training_goes_on_from():
    RunCheckHook().after_load_checkpoint(runner(Network(), load_from='a.pth', resume=True), checkpoint(Network()))


@pytest.mark.parametrize(
    'content, sentence',
    [
        (checkpoint(Network(classes=7)), 'head.weight is .* the numbers of classes seem to differ'),
        (checkpoint(Network(backbone=5)), '4 of another shape'),
        (
            dict(state_dict=Network().state_dict()),
            'has no meta, message_hub, optimizer to go on from: .* load_from=a.pth',
        ),
        (
            dict(checkpoint(Network()), optimizer=torch.optim.Adam(Network().parameters()).state_dict()),
            'lacks dampening, momentum',
        ),
        (
            dict(checkpoint(Network()), optimizer=torch.optim.SGD(Network().head.parameters(), lr=1.0).state_dict()),
            r'parameter groups of \[2\] tensors for \[6\]',
        ),
    ],
)
def test_what_it_does_not_go_on_from(content, sentence):
    with pytest.raises(ValueError, match=f"--resume is given 'a.pth', which .*{sentence}"):
        RunCheckHook().after_load_checkpoint(runner(Network(), load_from='a.pth', resume=True), content)


class TestTime(BaseTTAModel):
    """Test-time augmentation, as stock test tools wrap a model."""

    def merge_preds(self, data_samples_list):
        return data_samples_list[0]


def test_a_checkpoint_that_fits_is_looked_at_through_wrappers():
    class Tested(Network):
        def test_step(self, data):
            return data

    RunCheckHook().after_load_checkpoint(runner(TestTime(Tested()), load_from='a.pth'), checkpoint(Tested()))
    with pytest.raises(ValueError, match="load_from is 'a.pth', which does not fit Tested"):
        other = dict(state_dict=dict(weight=torch.zeros(1)))
        RunCheckHook().after_load_checkpoint(runner(TestTime(Tested()), load_from='a.pth'), other)


@pytest.mark.parametrize(
    'hook, field',
    [
        (dict(type='EarlyStoppingHook', monitor='acc', rule='greater'), 'EarlyStoppingHook.monitor'),
        (dict(type='CheckpointHook', save_best='acc', rule='greater'), 'default_hooks.checkpoint.save_best'),
        (
            dict(type='CheckpointHook', save_best=['accuracy', 'acc'], rule='greater'),
            'default_hooks.checkpoint.save_best',
        ),
    ],
)
def test_a_metric_that_evaluation_does_not_give(hook, field, tmp_path):
    hooks = [RunCheckHook(), *([hook] if 'monitor' in hook else [])]
    saving = hook if 'save_best' in hook else dict(type='CheckpointHook')
    with pytest.raises(ValueError, match=f"{field} is 'acc', and evaluation gives accuracy: choose of these"):
        training(tmp_path, hooks, saving, max_epochs=2, validate=True).train()


def test_metrics_that_it_gives(tmp_path):
    stopping = dict(type='EarlyStoppingHook', monitor='accuracy', rule='greater', patience=9)
    saving = dict(type='CheckpointHook', save_best='auto', rule='greater')
    training(tmp_path, [RunCheckHook(), stopping], saving, max_epochs=2, validate=True).train()


def test_groups_of_parameters_are_the_optimizers_own():
    """MMEngine's wrapper adds a group of settings to those of an optimizer that has several."""
    network = Network()
    groups = [dict(params=[parameter], lr=0.1) for parameter in network.parameters()]
    run = runner(network, load_from='a.pth', resume=True, optimizer=lambda *_, **__: torch.optim.SGD(groups))
    content = dict(checkpoint(network), optimizer=run.optim_wrapper.state_dict())
    assert 'base_param_settings' in content['optimizer'] and len(run.optim_wrapper.param_groups) == len(groups) + 1
    RunCheckHook().after_load_checkpoint(run, content)
    fewer = dict(content, optimizer=torch.optim.SGD(groups[:-1]).state_dict())
    with pytest.raises(ValueError, match=r'parameter groups of \[1, 1, 1, 1, 1\] tensors for \[1, 1, 1, 1, 1, 1\]'):
        RunCheckHook().after_load_checkpoint(run, fewer)


def test_several_optimizers():
    network = Network()
    wrappers = {
        name: OptimWrapper(torch.optim.SGD(part.parameters(), lr=0.1)) for name, part in network.named_children()
    }
    run = runner(network, load_from='a.pth', resume=True)
    run.optim_wrapper = OptimWrapperDict(**wrappers)
    RunCheckHook().after_load_checkpoint(run, dict(checkpoint(network), optimizer=run.optim_wrapper.state_dict()))
    with pytest.raises(ValueError, match="the state of its optimizer 'head' is not what an optimizer saves"):
        saved = {name: state for name, state in run.optim_wrapper.state_dict().items() if name != 'head'}
        RunCheckHook().after_load_checkpoint(run, dict(checkpoint(network), optimizer=saved))
