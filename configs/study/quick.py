"""A first look in a few minutes: five methods on one data set, five seeds."""
_base_ = './readme.py'
data = dict(_delete_=True, **{'MNIST-5k, 100 images': 'configs/study/recipes/mnist5k_100.py'})
selection_data = ['MNIST-5k, 100 images']
methods = [[], ['kd'], ['kd', 'ofd'], ['kd_views', 'ofd'], ['kd_views', 'ofd', 'lipschitz_local']]
seeds = list(range(10, 15))
