"""PyramidNet-200 to PyramidNet-110 on CIFAR-100, by logits alone: the pair of setting f."""
_base_ = './cifar100_pyramidnet200_to_pyramidnet110_ofd.py'
model = dict(
    teacher=dict(norm_stats='running'),
    taps=None,
    losses=dict(_delete_=True, kd=dict(type='mmlckd.LogitsKDLoss', tau=4.0, taps=['head.fc'])))
