"""ResNet-50 on ImageNet, alone, by the authors' schedule."""
_base_ = ['mmpretrain::_base_/models/resnet50.py', 'mmpretrain::_base_/default_runtime.py',
          '../_base_/datasets/imagenet.py', '../_base_/schedules/imagenet_100e.py']
custom_imports = dict(imports=['mmlckd'], allow_failed_imports=False)
