"""What a checkpoint may hold comes back as plain values, from either format of torch, and what it may not is
refused.
"""

from __future__ import annotations

import io
import pickle
import random
import tarfile
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from torch import nn

from mmlckd.checkpoints import read_checkpoint


def save(content, path, zipped=True, **options):
    torch.save(content, path, _use_new_zipfile_serialization=zipped, **options)
    return path


class Calls:
    """Pickled as a call of a function, with a state that is given to the result."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    'value',
    [
        *(
            torch.tensor([0, 1, 3]).to(dtype)
            for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.complex64)
        ),
        *(
            torch.tensor([0, 1, 1]).to(dtype)
            for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int64)
        ),
        torch.tensor(2.0),
        torch.zeros(0),
        torch.zeros(2, 0, 3),
        torch.arange(12.0).reshape(3, 4)[1:, ::2],
        torch.arange(12.0).reshape(3, 4).T,
        torch.ones(1).expand(5, 7),
        nn.Parameter(torch.ones(2, 3)),
        torch.eye(3).to_sparse(),
        torch.eye(3).to_sparse_csr(),
    ],
)
def test_tensors(value, zipped, tmp_path):
    read = read_checkpoint(save(dict(value=value), tmp_path / 'c.pth', zipped))['value']
    assert type(read) is torch.Tensor and not read.requires_grad
    assert read.dtype == value.dtype and read.layout == value.layout and torch.equal(read.to_dense(), value.to_dense())
    if value.layout is torch.strided:
        assert read.stride() == value.stride()


@pytest.mark.parametrize('zipped', [True, False])
def test_a_float8_tensor_of_which_torch_has_no_storage_type(zipped, tmp_path):
    if not hasattr(torch, 'float8_e4m3fn'):
        pytest.skip('this torch has no float8')
    value = torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn)
    try:
        path = save(dict(value=value), tmp_path / 'c.pth', zipped)
    except KeyError:
        pytest.skip('torch 2.1 has float8 and cannot save it')
    read = read_checkpoint(path)['value']
    assert read.dtype == value.dtype and torch.equal(read.float(), value.float())


@pytest.mark.parametrize('zipped', [True, False])
def test_tensors_that_share_a_storage_share_it_again(zipped, tmp_path):
    whole = torch.arange(6.0)
    read = read_checkpoint(save(dict(whole=whole, part=whole[2:4], same=whole), tmp_path / 'c.pth', zipped))
    read['part'].fill_(-1)
    assert read['whole'].tolist() == read['same'].tolist() == [0, 1, -1, -1, 4, 5]


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize(
    'value',
    [
        dict(a=None, b=True, c=[1, -(2**70), 0.5, float('inf')], d=('x', b'', b'\0\xff'), e={1: 2, (1, 'x'): 3}),
        {1, 'x'},
        slice(1, None, 2),
        Counter({30: 1, 40: 2}),
        OrderedDict(b=1, a=2),
        np.float32(0.5).item(),
    ],
)
def test_values_keep_their_types(value, protocol, tmp_path):
    read = read_checkpoint(save(dict(value=value), tmp_path / 'c.pth', pickle_protocol=protocol))['value']
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    'value',
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.arange(4, dtype='>i4'),
        np.zeros((0, 3), np.float32),
        np.array(['cat', 'dög']),
        np.array([b'cat', b'no']),
        np.array([True, False]),
        np.array(3),
    ],
)
def test_arrays(value, tmp_path):
    read = read_checkpoint(save(dict(value=value), tmp_path / 'c.pth'))['value']
    assert read.shape == value.shape and read.dtype == value.dtype.newbyteorder('=') and np.array_equal(read, value)
    read[...] = read  # may be written to


@pytest.mark.parametrize('number', [np.float64(0.1), np.float32(0.1), np.int64(-3), np.bool_(True), np.str_('cat')])
def test_numbers_of_numpy_are_pythons(number, tmp_path):
    read = read_checkpoint(save(dict(value=number), tmp_path / 'c.pth'))['value']
    assert read == number and type(read) in (float, int, bool, str)


def test_a_state_dict_keeps_the_notes_that_torch_reads_from_it(tmp_path):
    state = nn.BatchNorm1d(2).state_dict()
    read = read_checkpoint(save(dict(state_dict=state), tmp_path / 'c.pth'))['state_dict']
    assert vars(read) == dict(_metadata=OrderedDict({'': dict(version=2)}))


def test_a_log_history_is_made_anew_from_its_fields(tmp_path):
    hub = MessageHub.get_instance('contents')
    for value in (0.5, 0.25):
        hub.update_scalar('train/loss', value)
    read = read_checkpoint(save(dict(hub=hub.state_dict()), tmp_path / 'c.pth'))['hub']['log_scalars']['train/loss']
    read.update(0.125)
    assert [array.tolist() for array in read.data] == [[0.5, 0.25, 0.125], [1, 1, 1]]
    assert vars(read).keys() == vars(HistoryBuffer()).keys() and read.statistics('min') == 0.125


def test_what_python_2_wrote(tmp_path):
    """Strings were bytes there, an OrderedDict a call with lists, and the array's bytes a string."""
    text = b'(dp0\n'  # protocol 0, which torch never wrote
    (tmp_path / 'text.pth').write_bytes(text)
    with pytest.raises(ValueError, match='text.pth.* is damaged or no checkpoint'):
        read_checkpoint(tmp_path / 'text.pth')
    pickled = b'\x80\x02ccollections\nOrderedDict\n]](U\x01aK\x01ea\x85R.'
    header = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, dict(little_endian=True))]
    (tmp_path / 'c.pth').write_bytes(b''.join([*header, pickled, pickle.dumps([], 2)]))
    assert read_checkpoint(tmp_path / 'c.pth') == OrderedDict(a=1)


class Shadow(OrderedDict):
    """Pickled as an OrderedDict whose attribute stands before a method."""

    def __reduce__(self):
        return OrderedDict, (), dict(pop=0), None, iter(self.items())


def history(**fields):
    state = dict(max_length=10, _log_history=np.ones(2), _count_history=np.ones(2))
    return Calls(HistoryBuffer, state={**state, **fields})


ARRAY = np.arange(3.0).__reduce__()
TENSOR = torch.arange(4.0).__reduce_ex__(2)


def tensor(**changes):
    names = ('storage', 'offset', 'size', 'stride', 'requires_grad', 'hooks')
    return Calls(TENSOR[0], *dict(zip(names, TENSOR[1]), **changes).values())


def array(**changes):
    names = ('version', 'shape', 'dtype', 'fortran', 'content')
    return Calls(*ARRAY[:1], *ARRAY[1], state=tuple(dict(zip(names, ARRAY[2]), **changes).values()))


def nested(depth):
    value = ()
    for _ in range(depth):
        value = (value,)
    return value


def endless():
    value = []
    value.append(value)
    return value


REFUSED = {
    'an attribute before a method': Shadow(config='import os'),
    'attributes of a Counter': Calls(Counter, {}, state=dict(pop=0)),
    'other attributes of a state dict': Calls(OrderedDict, state=dict(_metadata={}, keys=0)),
    'metadata of another kind': Calls(OrderedDict, state=dict(_metadata={'': dict(version=[])})),
    'a class that is given attributes': Calls(OrderedDict, state=(None, dict(pop=0))),
    'ndarray called': Calls(np.ndarray, (3,), np.dtype('O')),
    'ndarray on a buffer': Calls(np.ndarray, (10**6,), np.dtype('f8'), b'abc'),
    'an array of objects': np.array([1, None], object),
    'times': np.array(['2020-01-01'], 'M8[D]'),
    'records': np.zeros(2, [('a', 'f4')]),
    'a dtype with flags': array(dtype=Calls(np.dtype, 'O', False, True, state=(3, '|', None, None, None, -1, -1, 63))),
    'a dtype of fields': array(
        dtype=Calls(np.dtype, 'f8', False, True, state=(3, '<', None, ('a',), dict(a=(np.dtype('O'), 0)), 8, 1, 0))
    ),
    'a history with another field': history(extra=1),
    'a history of objects': history(_log_history=[None, None]),
    'a history around what looks like an array': history(
        _log_history=Calls(
            OrderedDict, state=dict(__array_interface__=dict(data=(0, False), shape=(9,), typestr='<f8'))
        )
    ),
    'a history whose lengths differ': history(_count_history=np.ones(3)),
    'a history longer than its length': history(max_length=1),
    'a history with statistics of its own': history(
        statistics_methods=dict(min=Calls(getattr, HistoryBuffer, '__init__'))
    ),
    'getattr': Calls(getattr, HistoryBuffer, 'min'),
    'a function': print,
    'a class': OrderedDict,
    'a module': nn.Linear(1, 1),
    'a tensor with hooks': tensor(hooks=OrderedDict(a=1)),
    'a negative size': tensor(size=(-1,)),
    'a negative stride': tensor(stride=(-1,)),
    'a negative offset': tensor(offset=-1),
    'a size of text': tensor(size='4'),
    'a tensor of a terabyte': tensor(size=(2**38,), stride=(0,)),
    'a list in itself': endless(),
    'tuples in one another': nested(200),
    'tuples as a key': {nested(50): 1},
    'a number of a million bits': 1 << 1_000_000,
}
DAMAGED = {
    'behind the storage': tensor(size=(5,)),
    'behind it by its offset': tensor(offset=2),
    'behind it by its stride': tensor(stride=(2,)),
    'more strides than sizes': tensor(stride=(1, 1)),
    'an array of more bytes': array(shape=(4,)),
    'a sparse tensor with an index outside': torch.sparse_coo_tensor(
        torch.tensor([[5]]), torch.ones(1), (3,), check_invariants=False
    ),
    'a compressed one': torch.sparse_csr_tensor(
        torch.tensor([0, 9]), torch.tensor([0]), torch.ones(1), (1, 3), check_invariants=False
    ),
    'characters that do not exist': array(dtype=np.dtype('U1'), shape=(1,), content=b'\xff\xff\xff\x7f'),
    'truth of 7': array(dtype=np.dtype('b1'), shape=(1,), content=b'\x07'),
}


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('name', REFUSED)
def test_what_is_no_data_is_refused(name, zipped, tmp_path):
    path = save(dict(state_dict={}, meta=REFUSED[name]), tmp_path / 'c.pth', zipped)
    with pytest.raises(ValueError, match='c.pth.* holds more than weights, is refused and was not run'):
        read_checkpoint(path)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('name', DAMAGED)
def test_what_does_not_fit_its_bytes_is_damaged(name, zipped, tmp_path):
    path = save(dict(state_dict=dict(weight=DAMAGED[name])), tmp_path / 'c.pth', zipped)
    with pytest.raises(ValueError, match='c.pth.* is damaged or no checkpoint'):
        read_checkpoint(path)


def rewritten(path, changes, compression=zipfile.ZIP_STORED, more=()):
    """The archive with other contents of some records, and with more of them."""
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    (prefix,) = {name.partition('/')[0] for name in records}
    records.update({f'{prefix}/{name}': content for name, content in changes.items()})
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, content in [*records.items(), *((f'{prefix}/{name}', content) for name, content in more)]:
            archive.writestr(name, content)
    return path


def pickled(*opcodes):
    return b'\x80\x02' + b''.join(opcodes) + b'.'


@pytest.mark.parametrize(
    'opcodes, found',
    [
        ((b'(ios\ngetcwd\n',), 'INST'),
        ((b'(cos\ngetcwd\no',), 'os.getcwd'),
        ((b'(ccollections\nOrderedDict\no',), 'OBJ'),
        ((b'\x82\x01',), 'EXT1'),
        ((b'Pweights\n',), 'PERSID'),
        ((b'I1\n',), 'INT'),
        ((b'}\x96' + (2**40).to_bytes(8, 'little'),), 'damaged'),  # a bytearray of a terabyte
        ((b'ccollections\nOrderedDict\n)}\x92',), 'NEWOBJ_EX'),
        ((b'ccollections\nOrderedDict\n}b',), 'attributes'),  # given to the class
        ((b'}U\x01a}sa',), 'empty|damaged'),
        ((b')}a',), 'appended'),
        ((b']U\x01aNs',), 'set in something'),
        ((b'K\x01)R',), 'a call of a int'),
        ((b'U\x01xQ',), 'damaged'),
        ((b'(U\x07storageU\x01xU\x010U\x03cpuK\x01tQ',), 'no storage'),
        ((b'0',), 'damaged'),
        ((b'h\x05',), 'damaged'),
    ],
)
def test_opcodes(opcodes, found, tmp_path):
    path = rewritten(save({}, tmp_path / 'c.pth'), {'data.pkl': pickled(*opcodes)})
    with pytest.raises(ValueError, match=f'c.pth.*({found})'):
        read_checkpoint(path)


def test_a_place_in_the_memo_costs_nothing(tmp_path):
    content = pickled(b'}r\xff\xff\xff\xff')  # C's unpickler would make room for 2 ** 33 pointers
    assert read_checkpoint(rewritten(save({}, tmp_path / 'c.pth'), {'data.pkl': content})) == {}


def test_a_storage_has_the_bytes_of_its_record_and_no_more(tmp_path):
    path = save(dict(weight=torch.ones(64)), tmp_path / 'c.pth')
    rewritten(path, {'data/0': bytes(16)})
    with pytest.raises(ValueError, match='c.pth.* is damaged'):
        read_checkpoint(path)


def test_truth_values_of_tensors(tmp_path):
    path = rewritten(save(dict(mask=torch.tensor([True])), tmp_path / 'c.pth'), {'data/0': b'\x07'})
    with pytest.raises(ValueError, match='c.pth.* is damaged'):
        read_checkpoint(path)


def test_a_compressed_archive_is_read_and_a_bomb_is_not(tmp_path):
    # 16 MiB of zeros shrink to some 16 KiB, a thousandth
    path = save(dict(weight=torch.zeros(2**22), state=list(range(1000))), tmp_path / 'c.pth')
    with pytest.raises(
        ValueError, match=r'c.pth.* would grow from \d+ to 1\d{7} bytes when unpacked, and was not unpacked'
    ):
        read_checkpoint(rewritten(path, {}, zipfile.ZIP_DEFLATED))
    path = rewritten(save(dict(weight=torch.rand(1000)), tmp_path / 'd.pth'), {}, zipfile.ZIP_DEFLATED)
    assert len(read_checkpoint(path)['weight']) == 1000


def test_records_that_lie_on_one_another(tmp_path):
    """A thousand names of one record: what is read may not exceed the file."""
    path = save({str(i): torch.rand(1000) for i in range(10)}, tmp_path / 'c.pth')
    with zipfile.ZipFile(path, 'a') as archive:
        first = next(info for info in archive.infolist() if info.filename.endswith('data/0'))
        for i in range(1, 10):
            other = next(info for info in archive.infolist() if info.filename.endswith(f'data/{i}'))
            other.header_offset = first.header_offset
        for i in range(10, 1000):
            copied = zipfile.ZipInfo(first.filename.replace('data/0', f'data/{i}'))
            for field in ('header_offset', 'file_size', 'compress_size', 'CRC'):
                setattr(copied, field, getattr(first, field))
            archive.filelist.append(copied)
        archive._didModify = True
    with pytest.raises(ValueError, match='c.pth.* is damaged'):
        read_checkpoint(path)


@pytest.mark.parametrize(
    'change, sentence',
    [
        (lambda path: rewritten(path, {'byteorder': b'big'}), 'was written on a machine of the other byte order'),
        (lambda path: rewritten(path, {'constants.pkl': b''}), 'is a TorchScript program and no checkpoint'),
        (lambda path: rewritten(path, {}, zipfile.ZIP_BZIP2), 'is damaged'),
        (lambda path: rewritten(path, {}, more=[('data.pkl', pickled(b'}'))]), 'is damaged'),
        (lambda path: rewritten(path, {'other/data.pkl': pickled(b'}')}), 'is damaged'),
    ],
)
def test_other_archives(change, sentence, tmp_path):
    with pytest.raises(ValueError, match=f'c.pth.* {sentence}'):
        read_checkpoint(change(save(dict(weight=torch.ones(3)), tmp_path / 'c.pth')))


def test_torchscript_and_tar_files(tmp_path):
    torch.jit.script(nn.Linear(1, 1)).save(str(tmp_path / 'script.pth'))
    with pytest.raises(ValueError, match='is a TorchScript program and no checkpoint: save the state_dict'):
        read_checkpoint(tmp_path / 'script.pth')
    with tarfile.open(tmp_path / 'old.pth', 'w') as archive:
        archive.addfile(tarfile.TarInfo('storages'), io.BytesIO())
    with pytest.raises(ValueError, match='is a tar archive, as torch wrote before 0.1.10'):
        read_checkpoint(tmp_path / 'old.pth')


@pytest.mark.parametrize('zipped', [True, False])
def test_any_flipped_bit_or_lost_byte_gives_a_checkpoint_or_one_error(zipped, tmp_path):
    hub = MessageHub.get_instance('flips')
    hub.update_scalar('train/loss', 0.5)
    content = dict(meta=dict(epoch=1), state_dict=nn.Linear(3, 2).state_dict(), hub=hub.state_dict())
    sound = save(content, tmp_path / 'sound.pth', zipped).read_bytes()
    chance = random.Random(0)
    path = tmp_path / 'c.pth'
    for _ in range(1500):
        damaged = bytearray(sound)
        damaged[chance.randrange(len(sound))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged[: chance.choice([None, None, chance.randrange(len(sound))])])
        try:
            assert isinstance(read_checkpoint(path), dict)
        except ValueError as error:
            assert str(path) in str(error)
