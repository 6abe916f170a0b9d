"""Testing with test-time augmentation, as the test tools of the host libraries do it."""

from __future__ import annotations

import copy

from mmengine.config import Config, ConfigDict

from mmlckd.config import host_of

from .prerequisites import leaf_datasets

# How each host merges the predictions of an image's versions. Whole paths are found from any scope.
_MERGING: dict[str, dict] = dict(
    mmpretrain=dict(type='mmpretrain.models.AverageClsScoreTTA'),
    mmdet=dict(type='mmdet.models.DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)),
    mmseg=dict(type='mmseg.models.SegTTAModel'),
)
_FLIPS = dict(
    mmpretrain='mmcv.transforms.RandomFlip',
    mmdet='mmdet.datasets.transforms.RandomFlip',
    mmseg='mmseg.datasets.transforms.RandomFlip',
)
_DETECTION_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')


def augment_testing(config: Config) -> None:
    """Let a config test several versions of each image and merge the predictions.

    The config's own ``tta_model`` and ``tta_pipeline`` are used; what is missing is the host's merging, and each image
    as it is and flipped.

    Args:
        config: The config of a plain network. Its model becomes the ``module`` of a merging one.

    Raises:
        ValueError: The network is of no known host, and the config lacks one of these fields.

    Source: this project; the defaults are those of mmpretrain's and mmdet's tools/test.py, and mmseg's alike.
    """
    host = host_of(config) or ''
    for field in ('tta_model', 'tta_pipeline'):
        if config.get(field) is None and host not in _MERGING:
            raise ValueError(f'--tta needs {field} in the config of a network of {host}: add it')
    merging: dict = config.get('tta_model') or _MERGING[host]
    for _, dataset in leaf_datasets(config.test_dataloader.dataset, 'test_dataloader.dataset'):
        dataset['pipeline'] = config.get('tta_pipeline') or _flipped_too(dataset['pipeline'], host)
    config.model = ConfigDict(**merging, module=config.model)


def _flipped_too(pipeline: list[dict], host: str) -> list[dict]:
    """A test pipeline whose last step packs each image as it is and flipped."""
    *steps, pack = copy.deepcopy(pipeline)
    if host == 'mmdet':
        pack['meta_keys'] = _DETECTION_KEYS
    flips = [dict(type=_FLIPS[host], prob=probability) for probability in (1.0, 0.0)]
    return [*steps, dict(type='mmcv.transforms.TestTimeAug', transforms=[flips, [pack]])]
