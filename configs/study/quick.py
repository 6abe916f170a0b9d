"""A first look in a few minutes: five methods on one data set, five seeds."""
_base_ = './readme.py'
data = dict(_delete_=True, **{'MNIST-5k, 100 images': 'configs/study/recipes/mnist5k_100.py'})
methods = [[], ['kd'], ['kd', 'lipschitz'], ['ofd'], ['ofd', 'lipschitz']]
seeds = list(range(10, 15))
