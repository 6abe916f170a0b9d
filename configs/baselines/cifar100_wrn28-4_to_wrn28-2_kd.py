"""WRN-28-4 to WRN-28-2 on CIFAR-100, by logits alone: the pair of setting b."""
_base_ = './cifar100_wrn28-4_to_wrn28-2_ofd.py'
model = dict(
    teacher=dict(norm_stats='running'),
    taps=None,
    losses=dict(_delete_=True, kd=dict(type='mmlckd.LogitsKDLoss', tau=4.0, taps=['head.fc'])))
