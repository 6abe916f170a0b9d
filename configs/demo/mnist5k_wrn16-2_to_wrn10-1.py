"""The demo's student under its teacher: logits and features distilled, with local Lipschitz guidance on a second view.

The paper's own term is one more entry of the losses; mnist5k_wrn16-2_to_wrn10-1_london.py has it.
"""
_base_ = './mnist5k_wrn10-1.py'
teacher_checkpoint = 'work_dirs/mnist5k_wrn16-2/epoch_5.pth'
prerequisites = {teacher_checkpoint: 'python tools/train.py configs/demo/mnist5k_wrn16-2.py'}
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(config='configs/demo/mnist5k_wrn16-2.py', checkpoint=teacher_checkpoint, norm_stats='batch'),
    taps=['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn'],
    view=dict(type='mmlckd.MixedView'),
    losses=dict(
        kd=dict(type='mmlckd.LogitsKDLoss', tau=4.0, views='both', taps=['head.fc']),
        ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-3, connectors=True),
        local=dict(type='mmlckd.LocalLipschitzKDLoss', loss_weight=3.0, taps=['head.fc'])))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=5))
