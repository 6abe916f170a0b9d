"""The demo's student under its teacher with the paper's term, transmitting norms, and one view of each image."""
_base_ = './mnist5k_wrn16-2_to_wrn10-1.py'
model = dict(
    view=None,
    losses=dict(
        _delete_=True,
        lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True),
        ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-3, connectors=True),
        kd=dict(type='mmlckd.LogitsKDLoss', tau=4.0, taps=['head.fc'])))
