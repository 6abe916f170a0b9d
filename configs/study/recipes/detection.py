"""The detection demo with a second view of each batch, and all losses that the study compares.

Guidance compares the scores of every anchor, at all levels.
"""
_base_ = '../../demo/digits_faster_rcnn_r18x32_to_r18x16.py'
model = dict(
    view=dict(type='mmlckd.MixedView'),
    losses=dict(
        ofd_views=dict(type='mmlckd.OFDLoss', loss_weight=1e-4, connectors=True, views='both'),
        lipschitz_local=dict(
            type='mmlckd.LocalLipschitzKDLoss', center=False, taps=[dict(module='rpn_head.rpn_cls', call='all')])))
