"""scikit-learn's digits, trained twice as long: what a second view costs, spent on epochs."""
_base_ = './guided_sklearn_50.py'
train_cfg = dict(max_epochs=160)
param_scheduler = dict(T_max=160)
