"""scikit-learn's digits, 8 px read at 16, 50 training images, 80 epochs: as many iterations."""
_base_ = './mnist5k_100.py'
data_root = 'data/sklearn_digits'
teacher_config = 'configs/study/recipes/sklearn_teacher.py'
teacher_checkpoint = 'work_dirs/sklearn_teacher/epoch_20.pth'
prerequisites = {data_root: 'python tools/prepare_digits.py --source sklearn',
                 teacher_checkpoint: f'python tools/train.py {teacher_config}'}
data_preprocessor = dict(mean=[77.8] * 3, std=[95.9] * 3)
model = dict(teacher=dict(config=teacher_config, checkpoint=teacher_checkpoint))
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='meta/train_50.txt'))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
train_cfg = dict(max_epochs=80, val_interval=80)
param_scheduler = dict(T_max=80)
