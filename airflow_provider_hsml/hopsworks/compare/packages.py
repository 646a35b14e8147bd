"""The packages that a comparison needs, from the extra ``[metrics]``."""

from __future__ import annotations

import importlib

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

_NEEDED = {"numpy": "numpy", "scikit-learn": "sklearn.metrics"}


def check_installed() -> None:
    """
    Raise an error that says what to install, if a package is missing.

    :raises InvalidInputError: numpy or scikit-learn cannot be imported
    """
    for package, module in _NEEDED.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            message = (
                f"A comparison needs {package}, which cannot be imported ({error}).\n"
                "Install it on the workers: pip install 'airflow-provider-hsml[metrics]'."
            )
            raise InvalidInputError(message) from error
