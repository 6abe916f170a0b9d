"""Local guidance beside OFD in detection and segmentation of digit scenes, clean, noisy and blurred.

The student has few scenes, the teacher many. OFD and KD on both views see the same views at the same cost; OFD trained
twice as long costs as much, too. The weights are chosen for each task, in validation, on the selection seeds; that of
OFD is the demos' own.
"""
data = {
    'detection, digit scenes': 'configs/study/recipes/detection.py',
    'segmentation, digit scenes': 'configs/study/recipes/segmentation.py',
}
changes = dict(long=dict(longer=2))
methods = [
    [], ['ofd'], ['ofd', 'long'],
    ['ofd_views', 'kd_views'], ['ofd_views', 'lipschitz_local'], ['ofd_views', 'kd_views', 'lipschitz_local'],
]
seeds = [10, 11, 12, 13, 14]
selection_seeds = [0, 1]
each = True
grid = dict(ofd=[1e-4], ofd_views=[1e-4], kd_views=[0.2, 1., 5., 25.], lipschitz_local=[0.1, 0.3, 1., 3.])
weights = 'configs/study/dense_weights.json'

guided = ['ofd_views', 'kd_views', 'lipschitz_local']
compare = [[guided, ['ofd']], [guided, ['ofd', 'long']], [['ofd_views', 'lipschitz_local'], ['ofd', 'long']]]
aims = [
    dict(of=guided, over=['ofd_views', 'kd_views'], measure='test', gain=1., p=0.05),
    dict(of=guided, over=['ofd_views', 'kd_views'], measure='noise 32', gain=3., p=0.05),
    dict(of=guided, over=['ofd'], measure='test', gain=1., p=0.05),
    dict(of=guided, over=['ofd'], measure='noise 32', gain=3., p=0.05),
]
