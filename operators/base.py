"""What the operators share: how they are described, how they find their video, how Python calls them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.operators.executor import ExecutionError

from fiftyone_plugin.errors import EditError, InputError

__all__ = ["ICON", "call", "collection_of", "describe", "given", "one_target", "placement", "told"]

ICON = "/operators/assets/shepherd.svg"

_OUR_ERROR = re.compile(rf"^{re.escape(InputError.__module__)}\.\w+: (?P<line>.+)$", re.MULTILINE)
"""The last line of a traceback that ends with an error of ours."""


def describe(
    name: str,
    label: str,
    description: str,
    *,
    is_job: bool = False,
    can_be_scheduled: bool = False,
    writes: bool = True,
) -> foo.OperatorConfig:
    """What FiftyOne shows of an operator, and allows.

    Args:
        name: As in ``fiftyone.yml``.
        label: In the operator browser.
        description: One sentence.
        is_job: Reports progress while it runs.
        can_be_scheduled: May run in another process; jobs always may.
        writes: Changes the dataset, or files.
    """
    return foo.OperatorConfig(
        name=name,
        label=label,
        description=description,
        icon=ICON,
        dynamic=True,
        execute_as_generator=is_job,
        allow_immediate_execution=True,
        allow_delegated_execution=is_job or can_be_scheduled,
        risk_level=types.RiskLevel.MEDIUM if writes else types.RiskLevel.LOW,
    )


def placement(label: str) -> types.Placement:
    """A button above the grid."""
    place = types.Places.SAMPLES_GRID_SECONDARY_ACTIONS
    return types.Placement(place, types.Button(label=label, icon=ICON, prompt=True))


def given(values: Mapping[str, Any], *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Parameters of a call from Python: the function's ``locals()`` without itself, the collection, and Nones."""
    hidden = ("self", "sample_collection", "delegate", *leave_out)
    return {name: value for name, value in values.items() if name not in hidden and value is not None}


def collection_of(sample_or_collection: Any) -> Any:
    """A sample, a view or a dataset as a view.

    Raises:
        EditError: The sample is in no dataset.
    """
    if isinstance(sample_or_collection, fo.Sample):
        if sample_or_collection.dataset is None:
            raise EditError(f"{sample_or_collection.filepath}: is in no dataset yet; add the sample to one first")
        return sample_or_collection.dataset.select(sample_or_collection.id)
    return sample_or_collection.view()


def call(
    operator: foo.Operator, sample_or_collection: Any, params: Mapping[str, Any], *, delegate: bool = False
) -> foo.ExecutionResult:
    """Run an operator from Python, now or scheduled.

    Raises:
        ExecutionError: With one line, where something that was given cannot be used. FiftyOne's own would have the
            traceback of its thread in the message.
    """
    ctx = {"view": collection_of(sample_or_collection), "stream": False}
    try:
        return foo.execute_operator(operator.uri, ctx, params=dict(params), request_delegation=delegate)
    except ExecutionError as error:
        lines = [found["line"] for found in _OUR_ERROR.finditer(str(error))]
        if not lines or not str(error).rstrip().endswith(lines[-1]):
            raise
        raise ExecutionError(lines[-1]) from None


def told(execute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Decorate an operator's `execute`: the App shows an error of ours as one line, not only as a box to be opened."""

    @wraps(execute)
    def wrapped(self: Any, ctx: Any) -> Any:
        try:
            return execute(self, ctx)
        except InputError as error:
            if ctx.executor is not None:
                ctx.ops.notify(str(error), variant="error")
            raise

    return wrapped


def one_target(ctx: Any) -> Any:
    """The open sample, else the selected one, else the only one of the view: a video, or an image sequence.

    Raises:
        EditError: It is not clear which one is meant.
        VideoError: It is neither.
    """
    from fiftyone_plugin import labels
    from fiftyone_plugin.labels.browse import target_of

    chosen = [ctx.current_sample] if ctx.current_sample else list(ctx.selected or [])
    if len(chosen) > 1:
        raise EditError(f"{len(chosen)} samples are selected: select one video")
    if chosen:
        target = target_of(ctx.view, chosen[0])
        if target is not None:
            return target
    found = labels.targets(ctx.view)
    first = next(found)
    if next(found, None) is not None:
        raise EditError("there are several videos here: open one, or select one")
    return first
