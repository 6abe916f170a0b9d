"""MobileNet v1 on ImageNet, alone, by the authors' schedule; the network is timm's, with ReLU as in OFD's code."""
_base_ = './imagenet_resnet50.py'
model = dict(
    backbone=dict(_delete_=True, type='TIMMBackbone', model_name='mobilenetv1_100', act_layer='relu'),
    head=dict(in_channels=1024))
