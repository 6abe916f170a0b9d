"""What the Lipschitz term adds to each way of distilling, in classification with few images: the README's table."""
data = {
    'MNIST-5k, 100 images': 'configs/study/recipes/mnist5k_100.py',
    'sklearn digits, 100 images': 'configs/study/recipes/sklearn_100.py',
}
losses = dict(fsp=dict(type='mmlckd.FSPLoss', connectors=True), at=dict(type='mmlckd.AttentionTransferLoss'))
methods = [
    [], ['lipschitz'],
    ['kd'], ['kd', 'lipschitz'],
    ['ofd'], ['ofd', 'lipschitz'],
    ['kd', 'ofd'], ['kd', 'ofd', 'lipschitz'],
    ['kd', 'ofd', 'at'], ['kd', 'ofd', 'at', 'lipschitz'],
    ['fsp'], ['at'],
]
seeds = list(range(10, 20))
selection_seeds = list(range(5))
grid = dict(kd=[1., 3., 10.], ofd=[3e-3, 1e-2, 3e-2], lipschitz=[1., 3., 10.], fsp=[1e-5, 1e-4], at=[15., 50., 150.])
weights = 'configs/study/readme_weights.json'
