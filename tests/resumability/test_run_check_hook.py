"""What a run is refused for once it is built; through the tools it is tests/test_wrong_input.py's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import nn

from mmlckd.resumability import RunCheckHook


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
