"""MNIST-5k: 5,000 real digits, 28 px, read as colour images. Training takes a low-data part of the training split."""
data_root = 'data/mnist5k'
prerequisites = {data_root: 'python tools/prepare_digits.py'}
data_preprocessor = dict(num_classes=10, mean=[33.3] * 3, std=[78.6] * 3, to_rgb=False)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=28, padding=2),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=25,  # divides 100: the batch norms of a small last batch cost a student points
    num_workers=0,
    dataset=dict(type='CustomDataset', data_root=data_root, ann_file='meta/train_100.txt', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(
    batch_size=200,
    num_workers=0,
    dataset=dict(type='CustomDataset', data_root=data_root, ann_file='meta/val.txt', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = dict(
    batch_size=200,
    num_workers=0,
    dataset=dict(type='CustomDataset', data_root=data_root, ann_file='meta/test.txt', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1,))
