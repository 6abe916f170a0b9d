"""60 epochs of SGD with a cosine, for the demo's small sets."""
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
param_scheduler = dict(type='CosineAnnealingLR', T_max=60, by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=60, val_interval=20)
val_cfg = {}
test_cfg = {}
auto_scale_lr = dict(base_batch_size=25)
