"""Measure the node against dcmtk: rate, memory, crowds, silent connections, kills. Prints figures.

PYTHONPATH=tests python tests/clinic/reception.py [--slices 100] [--kills 10]
"""

import argparse
import contextlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from pydicom import dcmread
from support.clinic_node import ClinicNode, association, clinic_node
from support.clinic_peers import DicomAddress, echoscu, free_port, stop, storescu
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.clinic.supervisor import NICENESS

SENDERS = 4
STUDY_UID = "1.2.3.1"


def main() -> None:
    """Run all measurements on a state folder that is deleted afterwards."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--slices", type=int, default=100)
    arguments.add_argument("--kills", type=int, default=10)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="reception-") as name:
        folder = Path(name)
        files = full_size_ct(folder / "ct", chosen.slices)
        print(f"cores {psutil.cpu_count()}, load before {psutil.getloadavg()[0]:.1f}")
        print(f"CT: {len(files)} slices of 512x512, {files[0].stat().st_size / 1e6:.2f} MB each")
        print(f"dcmtk storescp: {dcmtk_rate(folder / 'storescp', files):.0f} images/s")
        with clinic_node(folder / "rate", "max_associations_per_address = 8\n") as node:
            print(f"node: {rate(node, files):.0f} images/s")
            with busy_cores(NICENESS["worker"]):
                print(
                    f"node, a process as busy as the engine on each core: {rate(node, files):.0f} images/s"
                )
            with busy_cores(0):
                print(
                    f"node, the same processes as urgent as the node: {rate(node, files):.0f} images/s"
                )
            crowd(node, files)
            silence(node)
            print(f"node: peak {peak_mb(node):.0f} MB, {rss_mb(node):.0f} MB at rest")
        if chosen.kills:
            kills(folder / "kills", files, chosen.kills)


def full_size_ct(folder: Path, slices: int) -> list[Path]:
    """A CT of 512x512 with the noise of one."""
    noise = np.random.default_rng(0).integers(0, 60, (512, 512)).astype(np.int16)
    size = {"Rows": 512, "Columns": 512, "PixelSpacing": [0.45, 0.45]}
    write_head_ct(folder, slices=slices, step_mm=2.5, PixelData=noise.tobytes(), **size)
    return sorted(folder.iterdir())


def rate(node: ClinicNode, files: list[Path]) -> float:
    """Images a second of one association; the study is deleted afterwards."""
    begin = time.perf_counter()
    done = storescu(node.address, *files, calling="RATE")
    seconds = time.perf_counter() - begin
    assert done.returncode == 0, done.stderr
    assert len(node.received(STUDY_UID)) == len(files)
    forget(node)
    return len(files) / seconds


def forget(node: ClinicNode) -> None:
    """Delete what was received, as a clinic's node never does by itself."""
    for study in node.state.spool.iterdir():
        shutil.rmtree(study)


def dcmtk_rate(folder: Path, files: list[Path]) -> float:
    """The same with dcmtk's own receiver, which forces nothing onto the disk."""
    folder.mkdir()
    address = DicomAddress("STORESCP", free_port())
    process = subprocess.Popen(["storescp", "-od", str(folder), str(address.port)])
    try:
        while not echoscu(address):
            time.sleep(0.05)
        begin = time.perf_counter()
        assert storescu(address, *files).returncode == 0
        return len(files) / (time.perf_counter() - begin)
    finally:
        stop(process)


@contextlib.contextmanager
def busy_cores(nice: int) -> Iterator[None]:
    """One process on each core that never rests."""
    command = ["nice", "-n", str(nice), sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command) for _ in range(psutil.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def crowd(node: ClinicNode, files: list[Path]) -> None:
    """Several senders of one study at the same time."""
    codes: list[int] = []
    begin = time.perf_counter()

    def send(index: int) -> None:
        codes.append(storescu(node.address, *files, calling=f"CROWD{index}").returncode)

    in_threads(send, SENDERS)
    seconds = time.perf_counter() - begin
    whole = sum(code == 0 for code in codes)
    print(
        f"{SENDERS} senders of one study: {whole} whole, {whole * len(files)} of "
        f"{SENDERS * len(files)} images taken, {len(node.received(STUDY_UID))} files, "
        f"{SENDERS * len(files) / seconds:.0f} images/s"
    )
    forget(node)


def silence(node: ClinicNode) -> None:
    """Connections that say nothing, on both ports, and an echo among them."""
    silent = [socket.create_connection(("127.0.0.1", node.address.port)) for _ in range(60)]
    silent += [socket.create_connection(("127.0.0.1", node.tls_port)) for _ in range(2)]
    process = psutil.Process(node.process.pid)  # type: ignore[union-attr]
    before, begin = process.cpu_times(), time.perf_counter()
    answered = echoscu(node.address)
    seconds = time.perf_counter() - begin
    time.sleep(5)
    after = process.cpu_times()
    used = (after.user + after.system - before.user - before.system) / (time.perf_counter() - begin)
    print(f"60 silent connections and 2 TLS stallers: echo {answered} in {seconds:.2f} s, "
          f"{used:.0%} of a core")  # fmt: skip
    for one in silent:
        one.close()


def kills(folder: Path, files: list[Path], count: int) -> None:
    """Kill the node at random while four senders send; every image that it acknowledged must be there."""
    acknowledged: set[str] = set()
    is_over = threading.Event()
    with clinic_node(folder) as node:

        def send(index: int) -> None:
            order = random.Random(index).sample(files, len(files))
            while not is_over.is_set():
                with contextlib.suppress(Exception), association(node, f"KILL{index}") as opened:
                    for file in order:
                        dataset = dcmread(file)
                        if opened.send_c_store(dataset).get("Status") == 0:
                            acknowledged.add(str(dataset.SOPInstanceUID))
                time.sleep(0.2)

        threads = [threading.Thread(target=send, args=(index,)) for index in range(SENDERS)]
        for thread in threads:
            thread.start()
        for number in range(count):
            time.sleep(random.Random(number).uniform(0.2, 2.0))
            node.kill()
            node.start()
        is_over.set()
        for thread in threads:
            thread.join()
        kept = {str(dcmread(path).SOPInstanceUID) for path in node.received(STUDY_UID)}
        row = node.settled(STUDY_UID, lambda row: row.instances == len(node.received(STUDY_UID)))
        print(
            f"{count} kills of the node: {len(acknowledged)} images acknowledged, "
            f"{len(acknowledged - kept)} lost, {len(node.received(STUDY_UID))} files, "
            f"{row.instances} in the worklist"
        )


def in_threads(work, count: int) -> None:  # type: ignore[no-untyped-def]
    """Run `work(index)` in as many threads and wait for all."""
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def peak_mb(node: ClinicNode) -> float:
    """Largest resident memory of the node so far."""
    status = Path(f"/proc/{node.process.pid}/status").read_text()  # type: ignore[union-attr]
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def rss_mb(node: ClinicNode) -> float:
    """Resident memory of the node now."""
    return psutil.Process(node.process.pid).memory_info().rss / 1e6  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
