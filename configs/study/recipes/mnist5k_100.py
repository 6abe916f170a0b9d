"""MNIST-5k at 16 px, 100 training images in batches of 25, 40 epochs: WRN-16-2 to WRN-10-1.

The losses are all that the studies compare; a method takes some of them. Losses that look at a second view take it part
of the way to another image of the batch.
"""
_base_ = './student_16px.py'
teacher_config, teacher_checkpoint = 'configs/study/recipes/teacher_16px.py', 'work_dirs/teacher_16px/epoch_10.pth'
prerequisites = {teacher_checkpoint: f'python tools/train.py {teacher_config}'}
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
