"""The dense study's guidance against OFD, on six new seeds: two methods, so few tests share the chance."""
_base_ = './dense.py'
guided = {{_base_.guided}}
methods = [['ofd'], guided]
seeds = [100, 101, 102, 103, 104, 105]
grid = dict(_delete_=True)  # the weights are the dense study's
compare = []
aims = [
    dict(of=guided, over=['ofd'], measure='test', gain=1., p=0.05),
    dict(of=guided, over=['ofd'], measure='noise 32', gain=3., p=0.05),
]
