"""Local Lipschitz guidance against the same losses without it, on the same views."""
data = {
    'MNIST-5k, 100 images': 'configs/study/recipes/guided_mnist5k_100.py',
    'sklearn digits, 50 images': 'configs/study/recipes/guided_sklearn_50.py',
}
methods = [
    ['kd', 'ofd'], ['kd', 'ofd', 'lipschitz_local'],
    ['kd_views', 'ofd'], ['kd_views', 'ofd', 'lipschitz_local'],
]
seeds = list(range(10, 20))
selection_seeds = list(range(6))  # on which the recipes' weights were chosen
