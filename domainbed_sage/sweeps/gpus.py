"""The GPUs of this machine, MIG slices included."""

import os
import re
import shutil
import subprocess

WAIT_S = 30.0


def visible() -> list[str]:
    """Values for CUDA_VISIBLE_DEVICES, one per GPU or slice: those given to this process, or all that are found.

    A GPU that is split into MIG slices is represented by its slices; PyTorch reaches a slice only by its UUID.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [device.strip() for device in given.split(",") if device.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=WAIT_S, check=False)
    except subprocess.TimeoutExpired:
        return []
    return parse(listed.stdout)


def parse(listing: str) -> list[str]:
    """UUIDs in what ``nvidia-smi -L`` prints: of the slices of each GPU, or of the GPU itself if it has none."""
    devices: list[list[str]] = []
    for line in listing.splitlines():
        if match := re.search(r"UUID:\s*(MIG-[^)\s]+)", line):
            devices[-1].append(match[1])
        elif match := re.search(r"UUID:\s*(GPU-[^)\s]+)", line):
            devices.append([match[1]])
    return [uuid for gpu in devices for uuid in (gpu[1:] or gpu)]
