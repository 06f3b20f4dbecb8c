"""Leases end with their process, and with the machine."""

import os
import time
from dataclasses import replace
from multiprocessing import get_context

from support.clinic_worklist import KEY

from edge_medgemma.runtime.clinic.worklist.lease import (
    Lease,
    ended_with_machine,
    is_alive,
    this_process,
)


def lease_of_this_process() -> Lease:
    return Lease(KEY, 1, 5, this_process(), time.monotonic())


def test_a_running_process_holds_its_lease() -> None:
    lease = lease_of_this_process()
    assert is_alive(lease) and not ended_with_machine(lease)


def test_another_process_of_the_same_number_does_not() -> None:
    lease = lease_of_this_process()
    other = replace(lease, holder=replace(lease.holder, started="1"))
    assert not is_alive(other) and not ended_with_machine(other)


def test_a_lease_of_another_start_of_the_machine_has_ended_without_fault() -> None:
    lease = lease_of_this_process()
    assert ended_with_machine(replace(lease, holder=replace(lease.holder, boot_id="before")))
    later = replace(lease, acquired_monotonic_s=time.monotonic() + 1000)
    assert ended_with_machine(later) and not is_alive(later)


def test_a_process_that_ended_and_was_not_reaped_holds_nothing() -> None:
    receive, send = get_context("fork").Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        send.send(lease_of_this_process())
        os._exit(0)
    lease = receive.recv()
    deadline = time.monotonic() + 10
    while is_alive(lease):
        assert time.monotonic() < deadline
    os.waitpid(child, 0)
    assert not is_alive(lease)
