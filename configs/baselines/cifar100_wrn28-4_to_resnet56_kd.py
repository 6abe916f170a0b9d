"""WRN-28-4 to ResNet-56 on CIFAR-100, by logits alone: the pair of setting d."""
_base_ = './cifar100_wrn28-4_to_resnet56_ofd.py'
model = dict(
    teacher=dict(norm_stats='running'),
    taps=None,
    losses=dict(_delete_=True, kd=dict(type='mmlckd.LogitsKDLoss', tau=4.0, taps=['head.fc'])))
