"""Rows that Python code hands over: which types are accepted, and how each becomes rows.

===============================================  ===============================================================
given                                            rows
===============================================  ===============================================================
list, tuple, deque, any sequence, Airflow's      its elements
lazy XCom sequence
a function                                       what it returns or yields, by this table; iterators too
pandas or polars DataFrame                       its records, columns by name; missing values are None
Arrow Table, RecordBatch, Dataset                its records
an iterator of such frames, from a function      the records of each in turn
===============================================  ===============================================================

Everything else is refused: the order of a set differs between processes, and the elements of a dict or a text are not
rows. pandas, polars and Arrow are not imported here: code that hands over their values has loaded them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from itertools import chain, count, islice
from typing import Any, NamedTuple

from airflow_provider_gemini_batch.api.errors import ConfigurationError

_CHUNK = 1024
# Of what mapped tasks returned; each may be large.
_SLICE = 256
# By the name of the class, or of one above it.
_INSTEAD = {
    "set": "its order changes from process to process; give a sorted list",
    "frozenset": "its order changes from process to process; give a sorted list",
    "dict": 'a dict is one row: put it into a list; of a batch\'s output take its rows: task.output["responses"], with '
    "multiple_outputs=True on that task",
    "str": "a text is one row: put it into a list; for what another task returns, give its task.output: a template "
    "turns it into text unless the Dag sets render_template_as_native_obj=True",
    "bytes": "decode it, and put it into a list",
    "NoneType": "the task or function that should give the rows returned nothing",
    "LazyFrame": "call its collect()",
    "DuckDBPyRelation": "call its arrow()",
    "Scanner": "call its to_table()",
    "BatchRequest": "it is one row: put it into a list",
    "coroutine": "the function is asynchronous; give one that returns or yields the rows",
    "async_generator": "the function is asynchronous; give one that returns or yields the rows",
    "DataFrameGroupBy": "give a frame",
}
_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_TO_LISTS = ("to_pylist", "to_list", "tolist")
_AS_IT_IS = frozenset({str, bool, int, date})
_ITERATORS_WITHOUT_ORDER = {"set_iterator"}


class PythonRows(NamedTuple):
    """Rows in their order, and the columns where they are known in advance."""

    rows: Iterator[Any]
    columns: tuple[str, ...] | None = None


def refuse_rows(given: Any) -> None:
    """Refuse what cannot be rows. Nothing is read, and a function is not called.

    :raises ConfigurationError: names the type and what to hand over instead.
    """
    uncalled = _name_of_uncalled_task(given)
    if uncalled is not None:
        raise ConfigurationError(f"inlined_requests: the task {uncalled} was not called: write {uncalled}()")
    if isinstance(given, type):
        raise _refusal(given, f"the class {given.__name__} is not a function that gives rows")
    if isinstance(given, Iterator) and not _is_file(given):
        raise ConfigurationError(
            "inlined_requests: the input is a generator or iterator, which can be read only once: hand over the "
            "function itself"
        )
    refuse_asynchronous(given)
    if not callable(given):
        _check_type(given)
    elif wanted := _required_arguments(given):
        raise ConfigurationError(
            f"inlined_requests: the function is called without arguments and requires {', '.join(wanted)}: bind them "
            "with functools.partial, or decorate it with @task.gemini_batch"
        )


def refuse_asynchronous(function: Any) -> None:
    """Refuse an asynchronous function. It is not called.

    :raises ConfigurationError: says what to hand over instead.
    """
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"inlined_requests: {_INSTEAD['coroutine']}")


def python_rows(given: Any) -> PythonRows:
    """Return the rows of a value, or of what a function returns.

    :raises ConfigurationError: the type is not accepted.
    """
    refuse_rows(given)
    if not callable(given):
        return _rows_of(given)
    made = given()
    if isinstance(made, Iterator) and type(made).__name__ not in _ITERATORS_WITHOUT_ORDER and not _is_file(made):
        return _rows_or_frames(made)
    _check_type(made)
    return _rows_of(made)


def _rows_or_frames(made: Iterator[Any]) -> PythonRows:
    """Return the rows that an iterator yields, or the records of the frames that it yields."""
    begin = list(islice(made, 1))
    if not begin or _frame_kind(begin[0]) is None:
        return PythonRows(chain(begin, made))
    first = begin[0]
    columns = _rows_of(first).columns

    def records() -> Iterator[Any]:
        for frame in chain((first,), made):
            _check_type(frame)
            found = _rows_of(frame)
            if found.columns != columns:
                raise ConfigurationError("inlined_requests: the frames of the function have different columns")
            yield from found.rows

    return PythonRows(records(), columns)


def _required_arguments(function: Any) -> list[str]:
    """Return the required arguments of a function."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return []
    return [one.name for one in parameters if one.default is one.empty and one.kind not in _ANY_NUMBER]


def is_missing(value: Any) -> bool:
    """Return whether a value stands for a missing one: None, NaN, NaT, pandas' NA."""
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124  (only NaN and its like differ from themselves)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"


def path_text(value: object) -> str | None:
    """Return the address of a path object, of whichever library; None for anything else."""
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    # UPath and ObjectStoragePath are not PathLike in all versions.
    return str(value) if hasattr(value, "protocol") and hasattr(value, "storage_options") else None


def plain(value: Any) -> Any:
    """Return a value in JSON's types: None for a missing one, Python's for numpy's, an enum's value, a path's text."""
    kind = type(value)
    if kind in _AS_IT_IS or (kind is float and value == value):  # noqa: PLR0124  (see is_missing)
        return value
    if is_missing(value):
        return None
    if isinstance(value, datetime):
        # Local times of old have seconds in their offset from UTC, which would be left out in JSON.
        offset = value.utcoffset()
        return value if offset is None or not offset.seconds % 60 else str(value)
    if kind is dict or isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_asdict"):
        return [plain(one) for one in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return plain(value.tolist())
    text = path_text(value)
    return value if text is None else text


def _check_type(value: Any) -> None:
    if _frame_kind(value) is None and not is_list(value):
        raise _refusal(value)


def _rows_of(value: Any) -> PythonRows:
    kind = _frame_kind(value)
    return PythonRows(elements(value)) if kind is None else _FRAMES[kind](value)


def is_list(value: object) -> bool:
    """Return whether a value is a list, or the like, such as what mapped tasks have returned."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview))


def elements(values: Any) -> Iterator[Any]:
    """Return the elements of a sequence; those of Airflow's lazy ones in slices, since each alone is a request."""
    kind = type(values).__name__
    if kind == "LazyXComSequence":
        return _sliced(values)
    if kind == "_MapResult" and is_list(values.value):  # of .map(), whose functions take one value each
        found = elements(values.value)
        for function in values.callables:
            found = map(function, found)
        return found
    if kind == "_ConcatResult" and all(map(is_list, values.values)):
        return chain.from_iterable(map(elements, values.values))
    return iter(values)


def _sliced(values: Any) -> Iterator[Any]:
    for start in count(0, _SLICE):
        some = values[start : start + _SLICE]
        yield from some
        if len(some) < _SLICE:
            return


def _is_file(value: Any) -> bool:
    return hasattr(value, "readline")


def _refusal(value: Any, what: str | None = None) -> ConfigurationError:
    name = type(value).__name__
    instead = next((_INSTEAD[each.__name__] for each in type(value).__mro__ if each.__name__ in _INSTEAD), None)
    if instead is None and isinstance(value, Mapping):
        instead = _INSTEAD["dict"]
    if instead is None and hasattr(value, "output") and hasattr(value, "task_id"):
        instead = "it is a task: give its output, task.output"
    if instead is None and (_is_file(value) or path_text(value) is not None):
        instead = "give the path of a file as input_path"
    if instead is None and (method := next((each for each in _TO_LISTS if hasattr(value, each)), None)):
        instead = f"call its {method}()"
    words = what or f"{name} cannot be rows"
    hint = instead or "give a list of rows, a frame, or a function that returns or yields rows"
    return ConfigurationError(f"inlined_requests: {words}: {hint}")


def _name_of_uncalled_task(value: Any) -> str | None:
    """Return the name of a function under ``@task`` that was handed over without being called."""
    if callable(value) and hasattr(value, "operator_class") and hasattr(value, "function"):
        return str(getattr(value.function, "__name__", "function"))
    return None


def _frame_kind(value: Any) -> str | None:
    """Return which of :data:`_FRAMES` reads this value, judged by the modules of its class and base classes."""
    for each in type(value).__mro__:
        kind = f"{each.__module__.partition('.')[0]}.{each.__name__}"
        if kind in _FRAMES:
            return kind
    return None


def _names(columns: Iterable[Any]) -> tuple[str, ...]:
    names = tuple(columns)
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(
                f"inlined_requests: a column of the frame is named by {type(name).__name__}: name columns by texts"
            )
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ConfigurationError(f"inlined_requests: the frame has two columns named {', '.join(twice)[:200]}")
    return names


def _pandas(frame: Any) -> PythonRows:
    names = _names(frame.columns)

    def records() -> Iterator[dict[str, Any]]:
        for start in range(0, len(frame), _CHUNK):
            for record in frame.iloc[start : start + _CHUNK].to_dict("records"):
                yield {name: plain(value) for name, value in record.items()}

    return PythonRows(records(), names)


def _polars(frame: Any) -> PythonRows:
    names = _names(frame.columns)
    return PythonRows(
        ({name: plain(value) for name, value in record.items()} for record in frame.iter_rows(named=True)), names
    )


def _arrow(value: Any, batches: Iterable[Any]) -> PythonRows:
    from airflow_provider_gemini_batch.rows.columns import records_of  # this module is part of each Dag file's import

    return PythonRows(
        ({name: plain(value) for name, value in record.items()} for batch in batches for record in records_of(batch)),
        _names(value.schema.names),
    )


def _batches(dataset: Any) -> Iterable[Any]:
    """Return the batches of a dataset, a few rows at a time; left alone, pyarrow reads far ahead and keeps it all."""
    options = {"batch_size": _CHUNK, "batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
    if getattr(getattr(dataset, "format", None), "default_extname", "") == "parquet":
        from pyarrow.dataset import ParquetFragmentScanOptions

        options["fragment_scan_options"] = ParquetFragmentScanOptions(pre_buffer=False)
    found: Iterable[Any] = dataset.to_batches(**options)
    return found


_FRAMES: Mapping[str, Callable[[Any], PythonRows]] = {
    "pandas.DataFrame": _pandas,
    "polars.DataFrame": _polars,
    "pyarrow.Table": lambda table: _arrow(table, table.to_batches(max_chunksize=_CHUNK)),
    "pyarrow.RecordBatch": lambda batch: _arrow(batch, [batch]),
    "pyarrow.Dataset": lambda dataset: _arrow(dataset, _batches(dataset)),
}
