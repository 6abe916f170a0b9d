"""MNIST-5k at 16 px, 100 images in batches of 25, with a second view of each batch for losses that look at it."""
_base_ = './mnist5k_100.py'
train_dataloader = dict(batch_size=25)
optim_wrapper = dict(optimizer=dict(lr=0.05))
model = dict(
    view=dict(type='mmlckd.MixedView'),
    losses=dict(
        lipschitz=None,
        kd=dict(loss_weight=3.0),
        kd_views=dict(type='mmlckd.LogitsKDLoss', tau=4.0, loss_weight=3.0, views='both', taps=['head.fc']),
        ofd=dict(loss_weight=3e-3),
        lipschitz_local=dict(type='mmlckd.LocalLipschitzKDLoss', loss_weight=3.0, taps=['head.fc'])))
