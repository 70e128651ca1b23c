# SPDX-License-Identifier: GPL-3.0-or-later
"""Selectors: what is refused, and which device one fits."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._block_selector import (
    Selector,
    eligible,
    mismatches,
)
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from hypothesis import given
from hypothesis import strategies as st
from support.block_devices import GIB, device, partition

NVME = device(
    "nvme0n1",
    transport="nvme",
    model="Samsung SSD 980 PRO",
    serial="S5GX1",
    wwn="eui.0025",
    size_bytes=400 * GIB,
    ids=["nvme-Samsung_SSD_980_PRO_S5GX1", "nvme-eui.0025"],
    links=["/dev/disk/by-path/pci-0000:01:00.0-nvme-1"],
)


def selector(**keys: Any) -> Selector:
    return Selector.parse({"name": "v", **keys})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "select[3].name: None is refused; allowed: what its owner calls the device"),
        ({"name": " "}, "select[3].name: ' ' is refused"),
        ({"name": "v"}, "v: '' is refused; allowed: at least one of path, id, model, vendor, serial, wwn"),
        ({"name": "v", "empty": False}, "v: '' is refused; allowed: at least one of"),
        ({"name": "v", "own": ["x"]}, "v: '' is refused; allowed: at least one of"),
        (
            {"name": "v", "modell": "x"},
            "v.modell: 'x' is refused; allowed: one of allow_used, empty, id, model",
        ),
        ({"name": "v", "path": "nvme0n1"}, "v.path: 'nvme0n1' is refused; allowed: the path of a device"),
        ({"name": "v", "path": "/dev/../etc/passwd"}, "v.path: '/dev/../etc/passwd' is refused"),
        ({"name": "v", "path": "/dev/"}, "v.path: '/dev/' is refused"),
        (
            {"name": "v", "id": "by-path/x"},
            "v.id: 'by-path/x' is refused; allowed: a name in /dev/disk/by-id/",
        ),
        ({"name": "v", "model": ""}, "v.model: '' is refused; allowed: a name or a shell pattern"),
        ({"name": "v", "serial": ["x"]}, "v.serial: ['x'] is refused"),
        ({"name": "v", "serial": True}, "v.serial: True is refused"),
        (
            {"name": "v", "transport": "pcie"},
            "v.transport: 'pcie' is refused; allowed: one of nvme, sata, scsi",
        ),
        ({"name": "v", "transport": ["nvme"]}, "v.transport: ['nvme'] is refused"),
        ({"name": "v", "rotational": "no"}, "v.rotational: 'no' is refused; allowed: true or false"),
        ({"name": "v", "empty": 1}, "v.empty: 1 is refused; allowed: true or false"),
        ({"name": "v", "size_min": "400 GB/s"}, "v.size_min: '400 GB/s' is refused; allowed: a size such as"),
        ({"name": "v", "size_max": "0"}, "v.size_max: '0' is refused"),
        (
            {"name": "v", "size_min": "2T", "size_max": "1T"},
            "v.size_max: '1T' is refused; allowed: at least size_min",
        ),
        (
            {"name": "v", "empty": True, "required": "all"},
            "v.required: 'all' is refused; allowed: one of one, any",
        ),
        ({"name": "v", "empty": True, "own": "label"}, "v.own: 'label' is refused; allowed: a list of UUIDs"),
        ({"name": "v", "empty": True, "own": [""]}, "v.own: [''] is refused"),
    ],
)
def test_what_cannot_be_a_selector(value: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Selector.parse(value, "select[3]")
    assert str(caught.value).startswith(message)


def test_what_it_says_in_messages() -> None:
    found = selector(transport="nvme", empty=True, partitions=False, rotational=False, own=["x"], model=None)
    assert found.given == "transport: nvme, empty: true, rotational: false"


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ({"path": "/dev/nvme0n1"}, []),
        ({"path": "/dev/disk/by-path/pci-0000:01:00.0-nvme-1"}, []),
        ({"path": "/dev/disk/by-id/nvme-eui.0025"}, []),
        ({"path": "/dev/nvme0n2"}, ["its path isn't /dev/nvme0n2"]),
        ({"id": "nvme-samsung*"}, []),
        ({"id": "/dev/disk/by-id/nvme-eui.0025"}, []),
        ({"id": "ata-*"}, ["its id is nvme-Samsung_SSD_980_PRO_S5GX1, nvme-eui.0025"]),
        ({"model": "samsung*980*"}, []),
        ({"model": "samsung"}, ["its model is Samsung SSD 980 PRO"]),
        ({"serial": "S5GX?"}, []),
        ({"serial": "s5gx1"}, ["its serial is S5GX1"]),
        ({"wwn": "EUI.0025"}, []),
        ({"vendor": "*"}, ["its vendor is unknown"]),
        ({"transport": "sata"}, ["its transport is nvme"]),
        ({"rotational": True}, ["it doesn't rotate"]),
        ({"rotational": False}, []),
        ({"size_min": "400G", "size_max": "400G"}, []),
        ({"size_min": "401G"}, ["it has 400 GiB, less than 401 GiB"]),
        ({"size_max": "399.5G"}, ["it has 400 GiB, more than 399.5 GiB"]),
        ({"empty": True}, []),
        ({"serial": 5, "transport": "usb"}, ["its serial is S5GX1", "its transport is nvme"]),
    ],
)
def test_how_a_device_fits(keys: dict[str, Any], wrong: list[str]) -> None:
    assert mismatches(selector(**keys), NVME) == wrong


LOOP = device("loop3", kind="loop", transport="loop", serial="/srv/x.img")
PART = partition(NVME, 1, ids=["nvme-Samsung_SSD_980_PRO_S5GX1-part1"])


@pytest.mark.parametrize(
    ("keys", "one", "wanted"),
    [
        ({"empty": True}, NVME, True),
        ({"empty": True}, device("dm-0", kind="multipath"), True),
        ({"empty": True}, device("sda", multipath_leg=True), False),
        ({"path": "/dev/sda"}, device("sda", multipath_leg=True), False),
        ({"empty": True}, device("sda", size_bytes=0), False),
        ({"empty": True}, LOOP, False),
        ({"transport": "loop"}, LOOP, True),
        ({"path": "/dev/loop3"}, LOOP, True),
        ({"path": "/dev/loop4"}, LOOP, False),
        ({"serial": "/srv/*"}, LOOP, True),
        ({"empty": True}, device("zram0", kind="ram", transport="ram"), False),
        ({"empty": True}, device("dm-0", kind="lvm", transport=None), False),
        ({"size_min": "1G"}, device("md0", kind="raid", transport=None), False),
        ({"path": "/dev/md0"}, device("md0", kind="raid", transport=None), True),
        ({"transport": "sata"}, device("sr0", kind="rom"), False),
        ({"serial": "S5GX1"}, PART, False),
        ({"serial": "S5GX1", "partitions": True}, PART, True),
        ({"path": "/dev/nvme0n1p1"}, PART, True),
        ({"id": "nvme-*_S5GX1-part1"}, PART, True),
        ({"id": "nvme-*"}, PART, False),
    ],
)
def test_which_kinds_can_be_meant(keys: dict[str, Any], one: dict[str, Any], wanted: bool) -> None:
    assert eligible(selector(**keys), one) is wanted


@pytest.mark.parametrize(
    ("keys", "named", "exact"),
    [
        ({"path": "/dev/sda"}, True, True),
        ({"serial": "S1"}, True, True),
        ({"serial": "S*"}, True, False),
        ({"id": "nvme-?"}, True, False),
        ({"model": "X"}, False, False),
    ],
)
def test_names(keys: dict[str, Any], named: bool, exact: bool) -> None:
    assert (selector(**keys).named, selector(**keys).exact) == (named, exact)


@given(st.text(max_size=12), st.text(max_size=12))
def test_any_text_is_a_pattern_or_refused_by_name(serial: str, model: str) -> None:
    try:
        found = Selector.parse({"name": "v", "serial": serial, "model": model})
    except InputError as error:
        assert error.variable in ("v.serial", "v.model")
    else:
        assert len(mismatches(found, device("sda"))) <= 2


@given(st.integers(min_value=1, max_value=1 << 50), st.integers(min_value=1, max_value=1 << 50))
def test_a_size_range_means_what_it_says(low: int, size: int) -> None:
    one = device("sda", size_bytes=size)
    assert (mismatches(selector(size_min=low), one) == []) is (size >= low)
    assert (mismatches(selector(size_max=low), one) == []) is (size <= low)
