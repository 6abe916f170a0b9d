"""What the Lipschitz term adds to OFD in detection and segmentation of digit scenes; the losses and weights are the
demos' own.
"""
data = {
    'detection, digit scenes': 'configs/demo/digits_faster_rcnn_r18x32_to_r18x16.py',
    'segmentation, digit scenes': 'configs/demo/digits_deeplabv3plus_r18x32_to_r18x16.py',
}
methods = [['ofd'], ['ofd', 'lipschitz']]
seeds = [10, 11, 12]
