"""Teacher WRN-16-2 of scikit-learn's digits, 8 px read at 16: all 600 training images."""
_base_ = './teacher_16px.py'
data_root = 'data/sklearn_digits'
prerequisites = {data_root: 'python tools/prepare_digits.py --source sklearn'}
data_preprocessor = dict(mean=[77.8] * 3, std=[95.9] * 3)
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
train_cfg = dict(max_epochs=20, val_interval=20)
param_scheduler = dict(T_max=20)
