"""Paired comparisons against scipy's test and worked examples."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmlckd.study import compare, holm
from mmlckd.study.aims import verdicts
from mmlckd.study.tables import contrasts, with_cost, with_interval

NUMBERS = st.lists(st.tuples(*[st.floats(0, 100)] * 2), min_size=3, max_size=20)


@given(NUMBERS)
def test_compare_is_the_paired_t_test(pairs):
    values, baseline = np.array(pairs).T
    result = compare(values, baseline)
    assert result.difference == pytest.approx((values - baseline).mean(), abs=1e-9)
    if (values - baseline).std() > 1e-6:
        reference = stats.ttest_rel(values, baseline)
        interval = reference.confidence_interval(0.95)
        assert result.p_value == pytest.approx(reference.pvalue, abs=1e-9)
        assert result.half_width == pytest.approx((interval.high - interval.low) / 2)


@pytest.mark.parametrize('shift, half_width, p_value', [(0.0, 0.0, 1.0), (2.0, nan, nan)])
def test_differences_without_spread(shift, half_width, p_value):
    found = compare([1.0 + shift, 2.0 + shift], [1.0, 2.0])
    assert found == pytest.approx((shift, half_width, p_value, 2), nan_ok=True)
    assert with_interval(found) == ('+2.00' if shift else '+0.00 ± 0.00')


@pytest.mark.parametrize('values, baseline', [([1.0], [2.0]), ([1.0, 2.0], [1.0])])
def test_too_few_or_unequal_runs_are_refused(values, baseline):
    with pytest.raises(ValueError, match='as many on both sides, at least two'):
        compare(values, baseline)


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03 times 3, 2, 1 = 0.03, 0.04, 0.03, and no later one below an earlier: 0.03, 0.04, 0.04
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.02, nan, 0.01]) == pytest.approx([0.02, nan, 0.02], nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_plain_values_and_bonferronis(p_values):
    adjusted = holm(p_values)
    for plain, value in zip(p_values, adjusted):
        assert plain <= value <= min(1.0, len(p_values) * plain) + 1e-12
    assert np.argsort(p_values, kind='stable').tolist() == sorted(
        range(len(p_values)), key=lambda i: (adjusted[i], p_values[i], i)
    )


def records(data, guided, plain):
    return [
        dict(data=data, method=method, seed=seed, test=test, validation=test, **{'noise 32': noise})
        for method, results in ((['kd'], plain), (['kd', 'lipschitz'], guided))
        for seed, (test, noise) in enumerate(results)
    ]


PLAIN = [(90.0, 50.0), (91.0, 51.0), (92.0, 52.0), (90.0, 50.0)]
BETTER = [(92.1, 53.0), (92.9, 54.0), (93.1, 55.0), (92.1, 53.0)]  # by 2.1, 1.9, 1.1 and 2.1, and by 3 under noise
WORSE = [(89.5, 50.0), (90.5, 51.0), (91.5, 52.0), (89.5, 50.0)]
PAIR = dict(of=['kd', 'lipschitz'], over=['kd'])


@pytest.mark.parametrize(
    'aim, second, expected',
    [
        (dict(measure='test', gain=1.0, p=0.05, sets=2), BETTER, 'on 2 data sets with p < 0.05: met (+1.80, +1.80)'),
        (dict(measure='test', gain=1.0, p=0.05, sets=2), WORSE, 'on 2 data sets with p < 0.05: missed (+1.80, -0.50)'),
        (dict(measure='test', gain=1.0, sets=1), WORSE, 'on 1 data sets: met (+1.80, -0.50)'),
        (dict(measure='test', gain=-0.3), WORSE, 'on every data set: missed (+1.80, -0.50)'),
        (dict(measure='noise 32', gain=2.0), BETTER, 'on every data set: met (+3.00, +3.00)'),
        (dict(measure='test', gain=1.0, p=1e-6), BETTER, 'on every data set with p < 1e-06: missed (+1.80, +1.80)'),
    ],
)
def test_aims_by_hand(aim, second, expected):
    found = contrasts(records('a', BETTER, PLAIN) + records('b', second, PLAIN))
    (sentence,) = verdicts(found, [dict(**PAIR, **aim)])
    gain = f'{aim["gain"]:+.2f} or more'
    assert sentence == f'KD + Lipschitz over KD, {aim["measure"]}: {gain} {expected}'


def test_aims_that_nothing_speaks_to_are_left_out():
    found = contrasts(records('a', BETTER, PLAIN))
    assert verdicts(found, [dict(of=['ofd'], over=['kd'], measure='test', gain=1.0)]) == []
    assert verdicts(found, [dict(**PAIR, measure='FGSM 8', gain=1.0)]) == []
    assert contrasts(records('a', BETTER, PLAIN)[:4]) == []


def test_more_pairs_can_be_compared_and_none_twice():
    rows = records('a', BETTER, PLAIN) + [{**row, 'method': []} for row in records('a', WORSE, PLAIN)[4:]]
    pairs = [
        (row.method, row.baseline)
        for row in contrasts(rows, [[['kd', 'lipschitz'], []], [['kd', 'lipschitz'], ['kd']]])
    ]
    assert pairs == [(('kd', 'lipschitz'), ('kd',)), (('kd', 'lipschitz'), ())]


def test_cost_is_in_trainings_of_the_student_alone():
    def row(data, method, step_ms, steps=10):
        return dict(data=data, method=method, seed=0, step_ms=step_ms, steps=steps)

    rows = [row('a', [], 2.0), row('a', [], 4.0), row('a', ['kd'], 6.0, steps=20)]
    assert [record['cost'] for record in with_cost(rows)] == [2 / 3, 4 / 3, 4.0]
    assert 'cost' not in with_cost([*rows, row('b', ['kd'], 6.0)])[0]  # b has no student alone
