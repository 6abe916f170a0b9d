"""The same question with 400 and 1,000 images of MNIST-5k; the weights are those chosen with 100."""
_base_ = './readme.py'
data = dict(_delete_=True, **{
    'MNIST-5k, 400 images': 'configs/study/recipes/mnist5k_400.py',
    'MNIST-5k, 1,000 images': 'configs/study/recipes/mnist5k_1000.py',
})
methods = [[], ['kd'], ['kd', 'lipschitz'], ['kd', 'ofd'], ['kd', 'ofd', 'lipschitz']]
seeds = list(range(10, 15))
