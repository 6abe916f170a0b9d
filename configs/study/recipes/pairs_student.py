"""Pairs of digits, 100 classes, 16 x 32 px: WRN-10-1 on 300 images."""
_base_ = './student_16px.py'
data_root = 'data/digit_pairs'
prerequisites = {data_root: 'python tools/prepare_digits.py --source pairs'}
data_preprocessor = dict(num_classes=100)
model = dict(head=dict(num_classes=100))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(32, 16)),
    dict(type='RandomCrop', crop_size=(16, 32), padding=1),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 16)), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='meta/train_300.txt', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(data_root=data_root, pipeline=test_pipeline))
train_cfg = dict(max_epochs=28, val_interval=28)
param_scheduler = dict(T_max=28)
