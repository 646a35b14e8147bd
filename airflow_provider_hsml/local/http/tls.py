"""HTTPS with a certificate authority of the server's own, created at the first start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

HOSTS = ("localhost", "127.0.0.1")


def certificate(folder: Path) -> tuple[Path, Path]:
    """
    Return a certificate for loopback; create it and its authority where there is none.

    :param folder: holds both; only its owner can read it
    :return: the CA bundle for clients, and the server's chain with its key
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    bundle, chain = folder / "ca.pem", folder / "server.pem"
    if not (bundle.exists() and chain.exists()):
        authority = trustme.CA(organization_name="airflow-provider-hsml local Model Serving")
        issued = authority.issue_cert(*HOSTS)
        for half in (bundle, chain):
            half.unlink(missing_ok=True)
        chain.touch(0o600)
        issued.private_key_and_cert_chain_pem.write_to_path(str(chain))
        staged = bundle.with_suffix(".new")
        authority.cert_pem.write_to_path(str(staged))
        staged.replace(bundle)  # Comes last, as a whole: either both files exist, or both are created again.
    return bundle, chain
