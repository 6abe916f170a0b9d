"""Pairs of digits, 300 training images in batches of 25, 28 epochs: WRN-16-2 to WRN-10-1.

The losses are those of mnist5k_100.py.
"""
_base_ = './pairs_student.py'
data_root = 'data/digit_pairs'
teacher_config, teacher_checkpoint = 'configs/study/recipes/pairs_teacher.py', 'work_dirs/pairs_teacher/epoch_15.pth'
prerequisites = {data_root: 'python tools/prepare_digits.py --source pairs',
                 teacher_checkpoint: f'python tools/train.py {teacher_config}'}
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(config=teacher_config, checkpoint=teacher_checkpoint, norm_stats='batch', precision='bf16'),
    taps=['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn'],
    view=dict(type='mmlckd.MixedView'),
    losses=dict(
        kd=dict(type='mmlckd.LogitsKDLoss', tau=4.0, taps=['head.fc']),
        kd_views=dict(type='mmlckd.LogitsKDLoss', tau=4.0, views='both', taps=['head.fc']),
        ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-3, connectors=True),
        lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True),
        lipschitz_local=dict(type='mmlckd.LocalLipschitzKDLoss', taps=['head.fc'])))
