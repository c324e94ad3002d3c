"""`ModelDataCollector` as entry scripts of Azure ML know it: the same arguments, columns and places of files.

Interface: azureml-monitoring 0.1.0a21; layout: azureml-v1.md 7. A score never fails for it: what cannot be written is
counted, and told in the log once a minute.
"""

from __future__ import annotations

import csv
import io
import os
import re
import sys
import time
import uuid
import warnings
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Union
from urllib.parse import quote

from ._files import Files

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ModelDataCollector"]

ENABLED = "AML_MODEL_DC_STORAGE_ENABLED"
"""Azure ML's variable: collecting is switched on."""
FOLDER = "AKS_INFERENCE_MODEL_DATA"
"""Where the files are."""
SPOOL = "AKS_INFERENCE_MODEL_DATA_SPOOL"
"""`true`: they are on their way to Blob Storage."""
WORKSPACE = "AKS_INFERENCE_MODEL_DATA_WORKSPACE"
"""`<subscription>/<group>/<workspace>`, where a script names none."""
UNKNOWN_WORKSPACE = "default/default/default"
DESIGNATIONS = ("inputs", "predictions", "labels", "signals", "general")
DAY_MINUTES = 24 * 60
"""A file holds the rows of a day."""
NO_REQUEST = "00000000-0000-0000-0000-000000000000"
TOLD_EVERY_S = 60.0

_CORRELATION, _TIME, _BOUNDARY = "$aml_dc_correlation_id", "$aml_dc_scoring_timestamp", "$aml_dc_boundary"
_WORKSPACE, _SERVICE, _REQUEST = "$aml_workspace", "$aml_service_name", "$aml_request_id"
_MODEL, _MODEL_VERSION = "$aml_model_name", "$aml_model_version"
CORRELATIONS = (_CORRELATION, _TIME, _BOUNDARY, _WORKSPACE, _SERVICE, _MODEL, _MODEL_VERSION, _REQUEST)
Row = Union[list[Any], tuple[Any, ...]]  # noqa: UP007 - replicas may run on an older Python


class ModelDataCollector:
    """Collects rows of one kind for one model."""

    def __init__(
        self,
        model_name: str,
        designation: str = "default",
        feature_names: Sequence[str] | None = None,
        workspace: str = UNKNOWN_WORKSPACE,
        webservice_name: str = "default",
        model_version: str = "default",
        collection_name: str = "default",
    ) -> None:
        """A collector.

        Args:
            model_name: Required. The model that the data is of.
            designation: Optional. inputs, predictions, labels, signals or general. Default: general.
            feature_names: Optional. The header of lists and arrays, of rows with as many values; a DataFrame has its
                own. Default: none.
            workspace: Optional. `<subscription>/<group>/<workspace>`. Default: that of the deployment.
            webservice_name: Optional. Default: the service or endpoint that runs this.
            model_version: Optional. Default: the newest of that model that the service has.
            collection_name: Optional. Name of the file of signals and general data. Default: data.
        """
        folder = os.environ.get(FOLDER)
        enabled = os.environ.get(ENABLED, "").lower() == "true"
        self._files = Files(folder, spool=os.environ.get(SPOOL) == "true") if enabled and folder else None
        self._designation = "general" if designation == "default" else designation
        if self._designation not in DESIGNATIONS:
            warnings.warn(
                f"designation {designation!r} is none of {', '.join(DESIGNATIONS)}: not collected", stacklevel=2
            )
            self._files = None
        given = workspace if workspace != UNKNOWN_WORKSPACE else os.environ.get(WORKSPACE, UNKNOWN_WORKSPACE)
        self._names = list(feature_names) if feature_names is not None else None
        named = self._designation in {"signals", "general"} and collection_name != "default"
        self._file = f"{collection_name}.csv" if named else "data.csv"
        self._own = {
            _BOUNDARY: DAY_MINUTES,
            _WORKSPACE: given.lower(),
            _SERVICE: webservice_name if webservice_name != "default" else os.environ.get("SERVICE_NAME", "default"),
            _MODEL: model_name,
            _MODEL_VERSION: _newest(model_name) if model_version == "default" else model_version,
        }
        self._lost = 0
        self._told: float | None = None

    def collect(self, input_data: Any, user_correlation_id: str = "") -> dict[str, Any] | None:  # noqa: ANN401
        """Appends rows: a list is one, as is an array of one dimension; an array of two or a DataFrame has them. Gives
        what inputs are correlated by.
        """
        if self._files is None:
            return None
        table = _table(input_data)
        if table is None:
            return None
        columns, rows = table
        fields = None
        if self._designation == "inputs":
            fields = self._correlations(user_correlation_id)
            columns, rows = _with(columns, rows, fields)
        self._write(columns, rows, fields)
        return fields

    def add_correlations(self, input_data: Any, correlations: dict[str, Any] | None) -> Any:  # noqa: ANN401
        """The data with what `collect` of the inputs gave, as further columns."""
        if correlations is None:
            return input_data
        values = [correlations[name] for name in CORRELATIONS]
        if isinstance(input_data, list):
            return [*input_data, *values]
        if hasattr(input_data, "toPandas"):
            input_data = input_data.toPandas()
        if hasattr(input_data, "itertuples"):
            frame = input_data.copy(deep=False)
            for name, value in zip(CORRELATIONS, values):  # noqa: B905 - of Python 3.10
                frame[name] = value
            return frame
        if hasattr(input_data, "ndim"):
            numpy = sys.modules["numpy"]
            data = numpy.atleast_2d(input_data)
            return numpy.append(data, numpy.array([values] * len(data), dtype=object), axis=1)
        _refuse()
        return input_data

    def _correlations(self, given: str) -> dict[str, Any]:
        made = str(uuid.uuid4())
        return {
            _CORRELATION: f"{given}-{made}" if given else made,
            _TIME: _now().replace(tzinfo=None).isoformat(),
            _REQUEST: _request(),
            **self._own,
        }

    def _write(self, columns: list[str] | None, rows: Iterable[Row], fields: dict[str, Any] | None) -> None:
        files: dict[tuple[str, bytes], list[bytes]] = {}
        for row in rows:
            names = columns or self._header(len(row))
            # Labels may come days after the inputs that they are of: they lie beside these.
            known = fields or (dict(zip(names, row)) if names and _TIME in names else {})  # noqa: B905
            key = (self._path({**self._own, **known}), _line(names) if names else b"")
            files.setdefault(key, []).append(_line(row))
        for (path, header), lines in files.items():
            try:
                assert self._files is not None  # noqa: S101 - for the type
                self._files.add(path, header, lines)
            except OSError as error:
                self._tell(len(lines), error)

    def _header(self, width: int) -> list[str] | None:
        if self._names is None:
            return None
        for names in (self._names, [*self._names, *CORRELATIONS]):
            if len(names) == width:
                return names
        told = f"{len(self._names)} feature_names for rows of {width} values: these have no header"
        warnings.warn(told, stacklevel=4)
        return None

    def _path(self, fields: dict[str, Any]) -> str:
        day = re.match(r"(\d{4})-(\d\d)-(\d\d)", str(fields.get(_TIME, "")))
        date = day.groups() if day else (*_now().strftime("%Y-%m-%d").split("-"),)
        place = (*str(fields[_WORKSPACE]).split("/"), fields[_SERVICE], fields[_MODEL], fields[_MODEL_VERSION])
        return "/".join(_part(str(each)) for each in (*place, self._designation, *date, self._file))

    def _tell(self, rows: int, error: OSError) -> None:
        self._lost += rows
        now = time.monotonic()
        if self._told is None or now - self._told >= TOLD_EVERY_S:
            self._told = now
            why = error.strerror or str(error)
            print(f"model data: {self._lost} rows of {self._designation} were lost: {why}", file=sys.stderr, flush=True)


def _table(data: Any) -> tuple[list[str] | None, list[Row]] | None:  # noqa: ANN401 - whatever a script has
    """Columns where the data names them, and rows."""
    if isinstance(data, list):
        return None, [data]
    if hasattr(data, "toPandas"):
        data = data.toPandas()
    if hasattr(data, "itertuples"):
        return [str(name) for name in data.columns], list(data.itertuples(index=False, name=None))
    if hasattr(data, "ndim") and data.ndim > 0:
        return None, [data.tolist()] if data.ndim == 1 else data.tolist()
    _refuse()
    return None


def _refuse() -> None:
    warnings.warn("model data must be a list, a numpy array or a DataFrame: not collected", stacklevel=3)


def _with(columns: list[str] | None, rows: list[Row], fields: dict[str, Any]) -> tuple[list[str] | None, list[Row]]:
    values = [fields[name] for name in CORRELATIONS]
    return (None if columns is None else [*columns, *CORRELATIONS]), [[*row, *values] for row in rows]


def _line(row: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _part(text: str) -> str:
    """A name of a folder or file: a script's values may be anything."""
    if text in {"", ".", ".."}:
        return "%2E" * len(text) or "default"
    return quote(text, safe=" !#$&'()+,;=@[]{}~")


def _newest(model: str) -> str:
    """The version of a model that the service has; scripts rarely name it."""
    folder = os.path.join(os.environ.get("AML_APP_ROOT", ""), "azureml-models", model)  # noqa: PTH118
    try:
        numbers = [int(name) for name in os.listdir(folder) if name.isdecimal()]  # noqa: PTH208
    except OSError:
        return "default"
    return str(max(numbers)) if numbers else "default"


def _request() -> str:
    """As the access log has it."""
    flask = sys.modules.get("flask")
    if flask is None or not flask.has_request_context():
        return NO_REQUEST
    headers = flask.request.headers
    return str(headers.get("x-request-id") or headers.get("x-ms-request-id") or NO_REQUEST)


def _now() -> datetime:
    return datetime.now(timezone.utc)  # noqa: UP017 - replicas may run on an older Python
