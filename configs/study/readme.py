"""Ways of distilling with and without Lipschitz terms, in classification with few images: the README's table.

Every method's weights and learning rate are chosen on the selection seeds, in validation, on the two small data sets.
"""
data = {
    'MNIST-5k, 100 images': 'configs/study/recipes/mnist5k_100.py',
    'MNIST-5k, 400 images': 'configs/study/recipes/mnist5k_400.py',
    'sklearn digits, 50 images': 'configs/study/recipes/sklearn_50.py',
    'digit pairs, 300 images': 'configs/study/recipes/pairs_300.py',
}
changes = dict(
    mixup=dict(
        data_preprocessor=dict(batch_augments=dict(augments=[dict(type='Mixup', alpha=0.4)])),
        model=dict(student=dict(head=dict(loss=dict(use_soft=True))))),
    long=dict(longer=2))
methods = [
    [], ['mixup'],
    ['kd'], ['kd', 'lipschitz'], ['kd', 'lipschitz_local'],
    ['kd', 'ofd'], ['kd', 'ofd', 'lipschitz'], ['kd', 'ofd', 'lipschitz_local'],
    ['kd', 'ofd', 'mixup'], ['kd', 'ofd', 'long'], ['kd', 'ofd', 'mixup', 'long'],
    ['kd_views', 'ofd'], ['kd_views', 'ofd', 'lipschitz'], ['kd_views', 'ofd', 'lipschitz_local'],
]
seeds = list(range(10, 20))
selection_seeds = list(range(5))
selection_data = ['MNIST-5k, 100 images', 'sklearn digits, 50 images']
grid = dict(
    kd=[3., 1., 10.], kd_views=[3., 1., 10.], ofd=[3e-3, 1e-3, 1e-2], lipschitz=[1., 0.3, 3.],
    lipschitz_local=[3., 1., 10.], lr=[0.05, 0.025, 0.1])
weights = 'configs/study/readme_weights.json'

guided = ['kd_views', 'ofd', 'lipschitz_local']
compare = [[guided, ['kd', 'ofd']], [guided, ['kd', 'ofd', 'long']], [guided, ['kd', 'ofd', 'mixup', 'long']]]
aims = [
    dict(of=guided, over=['kd_views', 'ofd'], measure='FGSM 8', gain=3., p=0.05),
    dict(of=guided, over=['kd_views', 'ofd'], measure='test', gain=0.5, p=0.05, sets=2),
    dict(of=guided, over=['kd_views', 'ofd'], measure='test', gain=-0.3),
    dict(of=guided, over=['kd', 'ofd'], measure='test', gain=1., p=0.05, sets=2),
    dict(of=guided, over=['kd', 'ofd'], measure='FGSM 8', gain=7., p=0.05),
]
