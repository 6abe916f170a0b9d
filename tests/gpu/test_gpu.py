"""What differs on a GPU: precision, memory formats, streams, synchronisation, processes.

Without one the tests that mean something on a CPU run there, so that they are known to work.
"""

from __future__ import annotations

import contextlib
import copy
import os

import pytest
import torch
from conftest import COMPILES, LONDON, TEACHER
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from torch import nn

from mmlckd.config import bare_model, read_config
from mmlckd.distillers.remade import Remade
from mmlckd.functional import transmitting_norm
from mmlckd.registry import MODELS

os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # some versions of torch read it once, at the first product
pytestmark = pytest.mark.gpu
HAS_GPU = torch.cuda.is_available()
DEVICE = 'cuda' if HAS_GPU else 'cpu'
NEEDS_GPU = pytest.mark.skipif(not HAS_GPU, reason='needs a GPU')
SGD = dict(type='SGD', lr=0.01, momentum=0.9)


@pytest.fixture(autouse=True)
def full_float32():
    """TensorFloat-32 has ten bits; what is compared here has 23."""
    flags = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = False
    yield
    for flag, value in zip(flags, before):
        flag.allow_tf32 = value


def distiller(device=DEVICE, precision=None, losses=None):
    """The demo's guided student, with every loss that this package has a recipe of, or some; and a second view."""
    config = read_config(LONDON)
    init_default_scope(config.default_scope)
    fields = copy.deepcopy(config.model)
    fields.teacher = dict(model=bare_model(read_config(TEACHER)), precision=precision)
    fields.student.data_preprocessor = dict(config.data_preprocessor, type='ClsDataPreprocessor')
    fields.view = dict(type='mmlckd.NoisyView')
    fields.losses.update(
        local=dict(type='mmlckd.LocalLipschitzKDLoss', taps=['head.fc']),
        kd_views=dict(type='mmlckd.LogitsKDLoss', views='both', taps=['head.fc']),
    )
    fields.losses = {name: loss for name, loss in fields.losses.items() if losses is None or name in losses}
    if losses is not None:
        fields.view = None
    torch.manual_seed(0)
    model = MODELS.build(fields)
    model.init_weights()
    if losses is None:
        model.distiller.view = SameNoise()
    return model.to(device).train()


def batch(model, count=16):
    generator = torch.Generator().manual_seed(0)
    images = list(torch.randint(0, 256, (count, 3, 28, 28), generator=generator, dtype=torch.uint8))
    samples = [DataSample().set_gt_label(i % 10) for i in range(count)]
    return model.data_preprocessor(dict(inputs=images, data_samples=samples), True)


class SameNoise(nn.Module):
    """A view whose noise is the same on every device."""

    def __init__(self):
        super().__init__()
        noise = torch.randn(16, 3, 28, 28, generator=torch.Generator().manual_seed(1))
        self.register_buffer('noise', 0.3 * noise, persistent=False)

    def forward(self, inputs, data_samples=None):
        return inputs + self.noise.to(inputs)


def gradients(model):
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def step(model, data, wrapper):
    with wrapper.optim_context(model):
        losses = model(**data, mode='loss')
        total, _ = model.parse_losses(losses)
    wrapper.update_params(total)
    return {name: value.item() for name, value in losses.items() if 'loss' in name}


def assert_near(found, expected):
    """Equal but for float32 sums in another order, which also move single values across the kink of a ReLU."""
    assert (found - expected).norm() <= 5e-3 * expected.norm()


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16] if HAS_GPU else [torch.float32])
def test_a_batch_norms_output_is_made_again(dtype, layout):
    torch.manual_seed(0)
    image = torch.randn(8, 16, 12, 12, device=DEVICE, dtype=dtype).to(memory_format=layout)
    feat = nn.BatchNorm2d(16, device=DEVICE)(image)
    torch.testing.assert_close(Remade.of(feat).make(), feat.detach())


def test_losses_and_gradients_are_those_of_the_cpu():
    ours, reference = distiller(), distiller('cpu')
    for model in (ours, reference):
        sum(model(**batch(model), mode='loss').values()).backward()
    expected = gradients(reference)
    assert expected.keys() == gradients(ours).keys()
    for name, grad in gradients(ours).items():
        assert_near(grad.cpu(), expected[name])


@pytest.mark.parametrize('shape', [(8, 3, 3), (64, 28, 28), (256, 7, 7)])
def test_transmitting_norms_are_the_singular_values(shape):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(4, *shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    rows = [feat.flatten(2) - feat.flatten(2).mean(2, keepdim=True) for feat in maps]
    exact = torch.linalg.matrix_norm(rows[0] @ rows[1].transpose(1, 2) / rows[0].shape[2], 2)
    found = transmitting_norm(*(feat.float().to(DEVICE) for feat in maps), num_iters=100, center=True)
    torch.testing.assert_close(found.cpu().double(), exact, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'] if HAS_GPU else ['bfloat16'])
def test_mixed_precision_trains(dtype):
    model, full = distiller(), distiller()
    kind = dict(type='AmpOptimWrapper', dtype=dtype) if HAS_GPU else dict(type='mmlckd.CpuAmpOptimWrapper')
    wrapper = build_optim_wrapper(model, dict(kind, optimizer=SGD))
    data = batch(model)
    first = step(model, data, wrapper)
    exact = {name: value.item() for name, value in full(**batch(full), mode='loss').items() if 'loss' in name}
    # 16-bit operands have 8 or 11 bits, and errors add up over ten layers and a pair's product
    assert first == pytest.approx(exact, rel=0.1)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for _ in range(5):
        last = step(model, data, wrapper)
    assert all(value == value and abs(value) < 1e6 for value in last.values())
    assert all(not torch.equal(weight, before[name]) for name, weight in model.named_parameters() if weight.dim() > 1)


@pytest.mark.parametrize('precision', ['fp16', 'bf16'] if HAS_GPU else ['bf16'])
def test_a_teacher_at_half_precision_gives_nearly_the_same_losses(precision):
    full, half = distiller(), distiller(precision=precision)
    half.distiller.teacher.model.load_state_dict(full.distiller.teacher.model.state_dict())
    exact, found = (
        {name: value.item() for name, value in model(**batch(model), mode='loss').items() if 'loss' in name}
        for model in (full, half)
    )
    assert found == pytest.approx(exact, rel=0.1)


def test_channels_last():
    plain, last = distiller(), distiller().to(memory_format=torch.channels_last)
    data = batch(last)
    data['inputs'] = data['inputs'].contiguous(memory_format=torch.channels_last)
    sum(last(**data, mode='loss').values()).backward()
    sum(plain(**batch(plain), mode='loss').values()).backward()
    for name, grad in gradients(plain).items():
        assert_near(gradients(last)[name], grad)


@COMPILES
@pytest.mark.slow
@pytest.mark.parametrize('backend, losses', [('inductor', ['kd']), ('inductor' if HAS_GPU else 'eager', None)])
def test_a_compiled_step_has_the_same_losses(backend, losses):
    compiled, plain = distiller(losses=losses), distiller(losses=losses)
    data = batch(compiled)
    forward = torch.compile(lambda: compiled(**data, mode='loss'), backend=backend)
    for _ in range(2):
        found, exact = forward(), plain(**batch(plain), mode='loss')
        for name in exact:
            torch.testing.assert_close(found[name], exact[name], rtol=2e-3, atol=1e-5)


@NEEDS_GPU
def test_a_step_on_another_stream():
    one, other = distiller(), distiller()
    sum(one(**batch(one), mode='loss').values()).backward()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        sum(other(**batch(other), mode='loss').values()).backward()
    torch.cuda.current_stream().wait_stream(stream)
    for name, grad in gradients(one).items():
        assert_near(gradients(other)[name], grad)


@contextlib.contextmanager
def refused_synchronisation():
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')


@NEEDS_GPU
def test_a_step_never_waits_for_the_gpu():
    model = distiller()
    data = batch(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for round_ in range(3):  # the first step checks gradients, which may wait
        with refused_synchronisation() if round_ else contextlib.nullcontext():
            total = sum(model(**data, mode='loss').values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    assert torch.isfinite(total)


@NEEDS_GPU
def test_deterministic_steps_have_the_same_bits(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'deterministic', True)
    one, other = distiller(), distiller()
    torch.use_deterministic_algorithms(True)
    try:
        for model in (one, other):
            wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=SGD))
            for _ in range(5):
                step(model, batch(model), wrapper)
    finally:
        torch.use_deterministic_algorithms(False)
    for name, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
