"""The input of a comparison: the answers of each version, and the rows beside their features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion


@dataclass(frozen=True, slots=True)
class Scored:
    """The answers of one version to the rows, in their order."""

    version: ServedVersion
    predictions: Sequence[Any] = field(repr=False)
    """One entry a row: a class, a number, or the probabilities of the classes; None where the model refused the row."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """The refused rows, each with the reason."""
    latencies: Sequence[float] = ()
    """Seconds of each request, in order."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The comparison's rows, beside their features."""

    labels: Sequence[Any] | None = field(default=None, repr=False)
    """The truth, one entry a row; None where it is unknown. None: there are no labels."""
    groups: Sequence[Any] | None = field(default=None, repr=False)
    """The group of each row, such as a user or a day: rows of one group are resampled together."""
    times: Sequence[Any] | None = field(default=None, repr=False)
    """The time of each row: datetimes, dates, or ISO 8601 text; UTC without an offset."""
    slices: Mapping[str, Sequence[Any]] = field(default_factory=dict, repr=False)
    """Columns whose values are compared one by one, by name."""
