"""The recipes whose training steps are timed, built without downloads; and random batches for them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmengine.registry import init_default_scope

from mmlckd.config import bare_model, read_config
from mmlckd.registry import MODELS


class Workload(NamedTuple):
    """A recipe to time.

    Args:
        config: Its path.
        size, batch: Image size and images in a batch that suit a CPU.
        gpu: Image size and images in a batch that suit a GPU; the same by default.
        plain, whole: The ratios to the floor to stay below, of the Lipschitz loss alone and of the whole recipe.
    """

    config: str
    size: int
    batch: int
    gpu: tuple[int, int] | None = None
    plain: float | None = None
    whole: float | None = None


WORKLOADS = dict(
    cifar_a=Workload('configs/lckd/cifar100_wrn28-4_to_wrn16-4.py', 32, 64, (32, 128), 1.05, 1.10),
    faster_rcnn=Workload('configs/lckd/voc_faster_rcnn_r101_to_r18.py', 320, 2, (640, 4), 1.05, 1.10),
    deeplabv3plus=Workload('configs/lckd/voc_deeplabv3plus_r101_to_r18.py', 256, 2, (512, 8), 1.05, 1.10),
    mobilenet=Workload('configs/lckd/imagenet_resnet50_to_mobilenet.py', 224, 8, (224, 64), 1.10, 1.25),
    cifar_c=Workload('configs/lckd/cifar100_wrn28-4_to_wrn16-2.py', 32, 64, (32, 128)),
    cifar_e=Workload('configs/lckd/cifar100_pyramidnet200_to_wrn28-4.py', 32, 16, (32, 64)),
    imagenet_resnet=Workload('configs/lckd/imagenet_resnet152_to_resnet50.py', 224, 2, (224, 32)),
    demo_classification=Workload('configs/demo/mnist5k_wrn16-2_to_wrn10-1_london.py', 28, 32),
)


def offline(node):
    """A model config without the weights that it would start from, which do not matter to its cost."""
    if isinstance(node, (list, tuple)):
        return [offline(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = type(node)()
    for key, value in node.items():
        downloads = key == 'pretrained' or (key == 'init_cfg' and 'Pretrained' in str(value))
        if not downloads:
            kept[key] = offline(value)
    return kept


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
    """Random images and labels, after the model's preprocessor."""
    if hasattr(model, 'roi_head'):
        from mmdet.testing import demo_mm_inputs

        inputs = demo_mm_inputs(batch, [[3, size, size]] * batch, num_items=[4] * batch, num_classes=10, device=device)
        return model.data_preprocessor(inputs, True)
    generator = torch.Generator().manual_seed(0)
    images = list(torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8).to(device))
    if hasattr(model, 'decode_head'):
        model.data_preprocessor.size = (size, size)
        samples = segmentation_samples(size, batch, generator)
    else:
        samples = classification_samples(batch, generator)
    return model.data_preprocessor(dict(inputs=images, data_samples=samples), True)


def segmentation_samples(size, batch, generator):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = []
    for _ in range(batch):
        mask = torch.randint(0, 10, (1, size, size), generator=generator)
        shape = dict(img_shape=(size, size), ori_shape=(size, size))
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=mask), metainfo=shape))
    return samples


def classification_samples(batch, generator):
    from mmpretrain.structures import DataSample

    labels = torch.randint(0, 10, (batch,), generator=generator)
    return [DataSample().set_gt_label(int(label)) for label in labels]
