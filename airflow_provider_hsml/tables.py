"""
Tables that are too large for one task: cut into shards for mapped tasks, and put together again.

.. code-block:: python

    shards = split_input("s3://bucket/rows/{{ ds }}/", rows_per_shard=500_000)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_hsml.hooks.row_files import InputFile


def split_input(input: Any, *, rows_per_shard: int = 500_000) -> list[list[dict[str, Any]]]:  # noqa: A002 - as the operator names it
    """
    Cut the files of an input into shards, each an ``input`` of ``BatchPredictOperator``, for ``expand``.

    Use it in a ``@task`` if one task would take hours. Parquet files are cut between row groups, other files are kept
    whole. Nothing but metadata is read of Parquet files.

    :param input: as for ``BatchPredictOperator``
    :param rows_per_shard: the rows that a shard has about. Choose as many as are scored in some minutes: each mapped
        task costs Airflow seconds
    :return: for each shard a list of ``{"path", "size", "changed"}``, with ``row_groups`` for parts of files. A file
        that is changed later is refused
    :raises InvalidInputError: there are no files, or too many shards
    """
    from airflow_provider_hsml.hooks.row_files import find_files  # noqa: PLC0415 - not needed to parse a DAG

    most = arguments.integer("rows_per_shard", rows_per_shard, least=1)
    shards: list[list[dict[str, Any]]] = [[]]
    held = 0
    for entry, rows in _entries(find_files(input)):
        if shards[-1] and held + rows > most:
            shards.append([])
            held = 0
        _append(shards[-1], entry)
        held += rows
    most_shards = _most_shards()
    if len(shards) > most_shards:
        message = (
            f"rows_per_shard: expected at most {most_shards} shards, got {len(shards)}.\nGive a larger number of rows "
            "for each, or raise Airflow's option [core] max_map_length."
        )
        raise InvalidInputError(message)
    return shards


def _most_shards() -> int:
    """Return how many mapped tasks Airflow makes of one task."""
    from airflow.providers.common.compat.sdk import conf  # noqa: PLC0415 - not needed to parse a DAG

    return int(conf.getint("core", "max_map_length", fallback=1024))


def join_manifests(manifests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Put the manifests of mapped tasks together.

    :param manifests: in the order of the shards
    :return: ``files`` and ``errors_files`` with their whole paths, ``counts``, ``model_versions``,
        ``deployment_versions``, ``single_version`` (whether one version has answered all rows), ``seconds`` (the sum of
        those of the tasks), ``rows_per_second`` (the mean rate of one task) and ``fingerprints``
    """
    several = list(manifests)
    if not several:
        message = "manifests: expected at least one, got none.\nCheck why there are none."
        raise InvalidInputError(message)
    versions = _different(one["model_version"] for one in several)
    changes = _different(one["deployment_version"] for one in several)
    certain = _different(one["single_version"] for one in several)
    single: bool | str = len(versions) == len(changes) == 1 and False not in certain
    if single and "unknown" in certain:
        single = "unknown"
    counts = {name: sum(one["counts"][name] for one in several) for name in ("success", "error", "skipped")}
    seconds = sum(one["seconds"] for one in several)
    rate = round((counts["success"] + counts["error"]) / seconds, 1) if seconds else None
    return {
        "files": [f"{one['result_path']}/{name}" for one in several for name in one["files"]],
        "errors_files": [f"{one['result_path']}/{one['errors_file']}" for one in several if one["errors_file"]],
        "counts": counts,
        "model_versions": versions,
        "deployment_versions": changes,
        "single_version": single,
        "seconds": round(seconds, 3),
        "rows_per_second": rate,
        "fingerprints": [one["fingerprint"] for one in several],
    }


def _entries(files: Iterable[InputFile]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the parts of files that can be in different shards, with their rows."""
    from airflow_provider_hsml.hooks.row_files import row_files  # noqa: PLC0415 - not needed to parse a DAG

    for file in files:
        if file.kind != "parquet":
            yield file.shard(), row_files(file.shard()).total
            continue
        from airflow_provider_hsml.hooks.arrow_files import open_fragment  # noqa: PLC0415 - needs pyarrow

        groups = open_fragment(file).row_groups
        first, end = file.row_groups or (0, len(groups))
        for number in range(first, end):
            yield file.shard((number, number + 1)), groups[number].num_rows


def _append(shard: list[dict[str, Any]], entry: dict[str, Any]) -> None:
    """Append a part of a file to a shard, or to the part before it."""
    last = shard[-1] if shard else None
    if last is not None and "row_groups" in entry and last["path"] == entry["path"]:
        last["row_groups"] = [last["row_groups"][0], entry["row_groups"][1]]
    else:
        shard.append(entry)


def _different(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
