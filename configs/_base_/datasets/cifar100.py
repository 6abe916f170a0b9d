"""CIFAR-100 as OFD's and LONDON's code reads it: reflect-pad 4, flip, crop 32 by torchvision's transforms, their mean
and deviation.
"""
_base_ = 'mmpretrain::_base_/datasets/cifar100_bs16.py'
data_root = 'data/cifar100'
prerequisites = {
    data_root: 'mkdir -p data/cifar100 && curl -L https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz '
    '| tar xz -C data/cifar100'}
data_preprocessor = dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7])
train_pipeline = [
    dict(type='NumpyToPIL'),
    dict(type='torchvision/Pad', padding=4, padding_mode='reflect'),
    dict(type='torchvision/RandomHorizontalFlip'),
    dict(type='torchvision/RandomCrop', size=32),
    dict(type='PILToNumpy'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    dataset=dict(type='mmlckd.CIFAR100', data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(batch_size=128, dataset=dict(type='mmlckd.CIFAR100', data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1, 5))
