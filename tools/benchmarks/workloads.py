"""The recipes whose training steps are timed, built without downloads, and random batches for them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmengine.registry import init_default_scope

from mmlckd.config import bare_model, read_config
from mmlckd.registry import MODELS


class Workload(NamedTuple):
    """A recipe; image size and images a batch that suit a CPU; and the largest ratios to the floor that are aimed at."""

    config: str
    size: int
    batch: int
    plain: float = None
    whole: float = None


WORKLOADS = dict(
    cifar_a=Workload('configs/lckd/cifar100_wrn28-4_to_wrn16-4.py', 32, 64, 1.05, 1.15),
    faster_rcnn=Workload('configs/lckd/voc_faster_rcnn_r101_to_r18.py', 320, 2, 1.05, 1.15),
    deeplabv3plus=Workload('configs/lckd/voc_deeplabv3plus_r101_to_r18.py', 256, 2, 1.05, 1.15),
    mobilenet=Workload('configs/lckd/imagenet_resnet50_to_mobilenet.py', 224, 8, 1.10, 1.20),
    cifar_c=Workload('configs/lckd/cifar100_wrn28-4_to_wrn16-2.py', 32, 64),
    cifar_e=Workload('configs/lckd/cifar100_pyramidnet200_to_wrn28-4.py', 32, 16),
    imagenet_resnet=Workload('configs/lckd/imagenet_resnet152_to_resnet50.py', 224, 2),
    demo_classification=Workload('configs/demo/mnist5k_wrn16-2_to_wrn10-1.py', 28, 32),
    demo_detection=Workload('configs/demo/digits_faster_rcnn_r18x32_to_r18x16.py', 128, 4),
)


def offline(node):
    """A model config without the weights it would start from: they do not matter to its cost."""
    if isinstance(node, dict):
        return type(node)(
            {
                key: offline(value)
                for key, value in node.items()
                if key != 'pretrained' and not (key == 'init_cfg' and 'Pretrained' in str(value))
            }
        )
    return [offline(item) for item in node] if isinstance(node, (list, tuple)) else node


def model_config(path):
    """The recipe's model, its teacher as a model dict."""
    config = read_config(path)
    init_default_scope(config.default_scope)
    __import__(f'{config.default_scope}.models')
    teacher = dict(config.model.teacher, model=bare_model(read_config(config.model.teacher.config)), checkpoint=None)
    del teacher['config']
    return offline(dict(config.model, teacher=teacher, data_preprocessor=config.get('data_preprocessor')))


def build(config):
    model = MODELS.build(config)
    model.init_weights()
    return model


def batch_of(model, size, batch, device):
    """Random images and labels, as the model's preprocessor makes them for training."""
    generator = torch.Generator().manual_seed(0)
    if hasattr(model, 'roi_head'):
        from mmdet.testing import demo_mm_inputs

        inputs = demo_mm_inputs(batch, [[3, size, size]] * batch, num_items=[4] * batch, num_classes=10, device=device)
        return model.data_preprocessor(inputs, True)
    images = list(torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8).to(device))
    if hasattr(model, 'decode_head'):
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        model.data_preprocessor.size = (size, size)
        samples = [
            SegDataSample(
                gt_sem_seg=PixelData(data=torch.randint(0, 10, (1, size, size), generator=generator)),
                metainfo=dict(img_shape=(size, size), ori_shape=(size, size)),
            )
            for _ in images
        ]
    else:
        from mmpretrain.structures import DataSample

        samples = [
            DataSample().set_gt_label(int(label)) for label in torch.randint(0, 10, (batch,), generator=generator)
        ]
    return model.data_preprocessor(dict(inputs=images, data_samples=samples), True)
