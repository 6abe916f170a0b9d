"""KD and OFD without a second view, trained twice as long: what the views cost, spent on epochs."""
_base_ = './guidance.py'
data = dict(_delete_=True, **{
    'MNIST-5k, 100 images, twice the epochs': 'configs/study/recipes/guided_mnist5k_100_long.py',
    'sklearn digits, 50 images, twice the epochs': 'configs/study/recipes/guided_sklearn_50_long.py',
})
methods = [['kd', 'ofd']]
