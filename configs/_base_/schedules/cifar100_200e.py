"""200 epochs of SGD with Nesterov, the learning rate to a tenth at 100 and at 150, where momentum starts anew: OFD's
and LONDON's code.
"""
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[100, 150], gamma=0.1)]
custom_hooks = [dict(type='mmlckd.MomentumRestartHook', epochs=[100, 150])]
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
val_cfg = {}
test_cfg = {}
auto_scale_lr = dict(base_batch_size=128)
