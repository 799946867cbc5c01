"""What is packed comes back as it was, to the type and the last bit."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_plugin.pipeline.packing import pack, unpack


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    where: Any


def there_and_back(value: Any, *, classes: tuple[type, ...] = (Colour, Point)) -> Any:
    plain, arrays = pack(value)
    return unpack(json.loads(json.dumps(plain)), arrays, classes=classes)


keys = st.one_of(st.integers(), st.text(max_size=3), st.tuples(st.integers(), st.integers()))
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.just(Colour.RED),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=3),
        st.sets(keys, max_size=3),
        st.builds(Point, st.floats(allow_nan=False), inner),
    ),
    max_leaves=8,
)


@given(values)
def test_values_come_back_equal_and_of_the_same_type(value: Any) -> None:
    back = there_and_back(value)
    assert back == value
    assert type(back) is type(value)
    if isinstance(value, dict):
        assert list(back) == list(value)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0, 4), (3, 2)])
def test_arrays_keep_type_and_shape(dtype: Any, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    back = there_and_back({"a": array, "transposed": array.T})
    assert (back["a"].dtype, back["a"].shape) == (array.dtype, array.shape)
    assert np.array_equal(back["a"], array)
    assert np.array_equal(back["transposed"], array.T)
    back["a"][...] = 0  # a copy of its own
    assert array.all()


def test_many_arrays_of_one_shape_are_kept_as_one() -> None:
    steps = [np.eye(2, 3) * n for n in range(1000)]
    _, arrays = pack({"steps": steps})
    assert len(arrays) == 1
    back = there_and_back(steps)
    assert isinstance(back, list)
    assert all(np.array_equal(a, b) for a, b in zip(back, steps, strict=True))
    mixed = there_and_back([np.zeros(2), np.zeros(3), np.zeros(2, np.float32)])
    assert [(m.shape, m.dtype.name) for m in mixed] == [((2,), "float64"), ((3,), "float64"), ((2,), "float32")]


def test_scalars_and_deques_stay_what_they_are() -> None:
    back = there_and_back((np.float32(0.1), np.int64(3), deque([1, 2], maxlen=2)))
    assert [type(v) for v in back] == [np.float32, np.int64, deque]
    assert back[2].maxlen == 2


@pytest.mark.parametrize("value", [object(), print, np.array([object()])])
def test_what_cannot_be_kept_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be kept"):
        pack([value])


def test_class_that_was_not_named_is_not_made() -> None:
    with pytest.raises(ValueError, match="'Point': must be one of Colour"):
        there_and_back(Point(1.0, None), classes=(Colour,))
