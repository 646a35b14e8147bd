"""What is known of the processes that a process has started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_hsml.local.cluster import process_groups

LISTENER = """
import socket, time
bound = socket.create_server(("127.0.0.1", 0))
print(bound.getsockname()[1], flush=True)
time.sleep(60)
"""
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); time.sleep(60)"


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux says who listens")
def test_who_listens_and_that_all_are_ended() -> None:
    command = [sys.executable, "-c", PARENT, LISTENER]
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as leader,
    ):
        assert leader.stdout is not None
        port = int(leader.stdout.readline())

        ports = process_groups.listening_ports(leader.pid)

        assert ports == {port}
        assert other.getsockname()[1] not in ports
        process_groups.kill(leader.pid)
        assert leader.stdout.read() == "", "the last that held it has ended"
    process_groups.kill(leader.pid)


def test_when_a_process_started() -> None:
    assert process_groups.start_time(os.getpid()) == process_groups.start_time(os.getpid())
    with subprocess.Popen(["true"]) as ended:
        pass
    assert process_groups.start_time(ended.pid) is None
