#!/usr/bin/python
# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: block_device_info
short_description: Which block devices there are, what is on them, and which one is meant
version_added: 0.1.0
description:
  - Tells of every block device who it is, what is on it, who uses it, and whether it is free.
  - Picks devices by what a person knows of them. A selector gets the one device that it means, or a refusal
    that names the candidates.
  - A device is free if nobody uses it and nothing is on it. Nobody means no mount in any mount namespace that
    can be seen, no swap, no LVM, RAID, dm-crypt, loop device or btrfs built on it, no process that has it open
    for writing, and no exclusive claim in the kernel. Nothing means no signature that C(wipefs) knows, no
    partition, and only zeros (or only ones) in the first and the last MiB.
  - A device that would be free otherwise is opened exclusively for an instant. Nothing is written.
  - Needs root. C(udev) needn't run. What it would tell comes from sysfs then.
attributes:
  check_mode:
    support: full
    description: Does the same in check mode.
  diff_mode:
    support: none
    description: Changes nothing.
  platform:
    support: full
    platforms: posix
    description: Linux.
options:
  select:
    description:
      - What the wanted devices are known by, each by a selector. All that a selector says must fit.
      - A device that several selectors could have goes to one that no other device fits. Two selectors never
        get the same device, nor one a disk and the other a partition of it.
      - A partition is meant only by O(select[].path), by O(select[].id) with its C(-partN), or with
        O(select[].partitions).
      - A loop device, or one that is made of others (LVM, RAID, dm-crypt), is meant only if O(select[].path),
        O(select[].id), O(select[].serial), O(select[].wwn) or O(select[].transport) says so.
      - A path to a multipath device is never meant.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What the owner calls the device. Messages and RV(selected) use it.
        type: str
        required: true
      path:
        description: The device's path, such as V(/dev/nvme0n1), or a link to it below C(/dev/disk).
        type: str
      id:
        description:
          - Its name in C(/dev/disk/by-id), or a shell pattern for it, such as V(nvme-Samsung*).
        type: str
      model:
        description: Its model, or a shell pattern. Case doesn't matter.
        type: str
      vendor:
        description: Its vendor, or a shell pattern. Case doesn't matter.
        type: str
      serial:
        description:
          - Its serial number, or a shell pattern. Case matters.
          - The serial of a loop device is the path of its backing file.
        type: str
      wwn:
        description: Its world wide name, such as V(0x5002538e40a1b2c3) or V(eui.0025385b71b0a2c4), or a pattern.
        type: str
      transport:
        description: How it is attached.
        type: str
        choices:
          - nvme
          - sata
          - scsi
          - sas
          - iscsi
          - fc
          - usb
          - virtio
          - xen
          - mmc
          - pmem
          - loop
          - nbd
          - rbd
          - ram
      rotational:
        description: Whether it rotates, as the kernel says.
        type: bool
      size_min:
        description: The least size, such as V(400G). Units are powers of 1024.
        type: str
      size_max:
        description: The largest size.
        type: str
      empty:
        description:
          - Take only devices that are free into account, so that V(the one empty NVMe disk) can be meant.
          - A device that O(wipe) gives up counts too.
        type: bool
        default: false
      partitions:
        description: Whether a partition can be meant by what its disk is known by.
        type: bool
        default: false
      own:
        description:
          - Marks by which the owner knows a device that it has set up already. They are UUIDs and labels of
            file systems, LUKS headers and swap, and names of volume groups and partitions.
          - A device that carries one, itself, on a partition or on what is built on it, is the one. It needn't
            be free, but all else in the selector must fit it.
        type: list
        elements: str
        default: []
      required:
        description:
          - With V(one) exactly one device must fit.
          - With V(any) those that fit are as good as each other. The smallest of the free ones is taken.
        type: str
        choices: [one, any]
        default: one
      allow_used:
        description: Whether a device that isn't free may be picked, for whoever only looks.
        type: bool
        default: false
  wipe:
    description:
      - What may be given up. A device with anything on it is free only if this list names its exact serial
        with every signature that is on it and on its partitions.
      - A device that is in use is never free, and neither is one that shares its serial with another disk.
    type: list
    elements: dict
    default: []
    suboptions:
      serial:
        description: The exact serial.
        type: str
        required: true
      signature:
        description:
          - The signature as RV(devices[].content) has it, such as V(ext4), V(gpt), V(LVM2_member).
          - V(data) stands for content without a known signature.
        type: str
        required: true
  fail:
    description: Whether a selector that gets no device makes the module fail. Otherwise see RV(refusals).
    type: bool
    default: true
author:
  - The matryoshka.host authors (@matryoshka-host)
"""

EXAMPLES = r"""
- name: Find the one empty NVMe disk of at least 400 GiB
  matryoshka.host.block_device_info:
    select:
      - name: storage_volumes[docker].device
        transport: nvme
        size_min: 400G
        empty: true
  register: block

- name: Two devices in one go, one of which may lose its old file system
  matryoshka.host.block_device_info:
    select:
      - name: docker
        id: nvme-Samsung_SSD_980_PRO*
        own: [engine-data]
      - name: caches
        serial: S5GXNX0T
    wipe:
      - serial: S5GXNX0T
        signature: ext4

- name: Only look
  matryoshka.host.block_device_info:
"""

RETURN = r"""
devices:
  description: Every block device that has a size, sorted by name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The kernel's name.
      type: str
      sample: nvme0n1
    path:
      description: Its path.
      type: str
    links:
      description: Links to it below C(/dev/disk) and C(/dev/mapper).
      type: list
      elements: str
    ids:
      description: Its names in C(/dev/disk/by-id), with those that udev would make if it ran.
      type: list
      elements: str
    number:
      description: Its device number, as C(major:minor).
      type: str
    kind:
      description:
        - V(disk), V(partition), V(loop), V(raid), V(lvm), V(crypt), V(multipath), V(mapper), V(vdo), V(bcache),
          V(zvol), V(drbd), V(ram), V(rom) or V(floppy).
      type: str
    disk:
      description: The kernel's name of the disk that a partition is on, else its own.
      type: str
    partition:
      description: A partition's number, else null.
      type: int
    partition_label:
      description: The name that a GPT has for a partition, as the kernel knows it.
      type: str
    partitions:
      description: Paths of its partitions.
      type: list
      elements: str
    slaves:
      description: The kernel's names of the devices that it is made of.
      type: list
      elements: str
    multipath_leg:
      description: Whether it is one of several paths to a multipath device.
      type: bool
    size_bytes:
      description: Its size in bytes.
      type: int
    transport:
      description: How it is attached, as in O(select[].transport). Null for what is made of other devices.
      type: str
    vendor:
      description: Its vendor.
      type: str
    model:
      description: Its model. Without udev the kernel's, which ends after 16 characters for SATA and SCSI.
      type: str
    serial:
      description: Its serial number. The path of the backing file for a loop device.
      type: str
    wwn:
      description: Its world wide name.
      type: str
    rotational:
      description: Whether it rotates, as the kernel says.
      type: bool
    removable:
      description: Whether its medium can be taken out.
      type: bool
    read_only:
      description: Whether it can only be read.
      type: bool
    logical_block_bytes:
      description: The smallest unit that can be addressed.
      type: int
    physical_block_bytes:
      description: The smallest unit that can be written without reading first.
      type: int
    mapper_name:
      description: The name of a device of the device mapper.
      type: str
    backing_file:
      description: The file behind a loop device.
      type: str
    node:
      description: Whether RV(devices[].path) exists.
      type: bool
    signatures:
      description: All signatures with C(offset), C(type), C(usage), C(uuid), C(label).
      type: list
      elements: dict
    content:
      description: The kinds of signatures, sorted.
      type: list
      elements: str
      sample: [dos, ext4]
    shown:
      description: The signatures for a person.
      type: str
    filesystem:
      description: C(type), C(uuid), C(label) if a file system and nothing else is on it, else null.
      type: dict
    members:
      description:
        - What it is a member of. C(kind) is one of V(lvm), V(raid), V(luks), V(zfs), V(ceph), V(bcache) and
          others, C(uuid) its own, C(name) that of the volume group, array or pool.
      type: list
      elements: dict
    blank:
      description: Whether both ends hold nothing. Null if there is a signature, or if it can't be read.
      type: bool
    mounts:
      description:
        - Where it is mounted. C(mount_point), C(root), C(filesystem), C(options), C(read_only).
        - C(pid) and C(process) of a process that sees the mount are null for the host's own. Mounts in other
          namespaces are told if the host itself hasn't mounted the device.
      type: list
      elements: dict
    swap:
      description: Whether it is used as swap.
      type: bool
    holders:
      description: What is built on it.
      type: list
      elements: str
    system:
      description: Whether the host's own C(/), C(/boot), C(/usr) or C(/var) is on this disk.
      type: bool
    writers:
      description: Processes that have it open for writing. Looked for only if it would be free otherwise.
      type: list
      elements: str
    busy:
      description: Whether the kernel refuses an exclusive claim. Null if it wouldn't be free anyway.
      type: bool
    error:
      description: Why it can't be read, else null.
      type: str
    free:
      description: Whether it may be formatted.
      type: bool
    reasons:
      description:
        - Why it isn't free, each with C(code) and C(text).
        - C(code) is V(not_a_disk), V(no_size), V(read_only), V(no_node), V(error), V(system), V(mounted),
          V(swap), V(held), V(open), V(busy), V(signed) or V(partitioned).
      type: list
      elements: dict
    wipe:
      description: What is on it and that O(wipe) gives up.
      type: list
      elements: str
selected:
  description:
    - The device of each selector that got one, by O(select[].name), as in RV(devices).
    - C(own) says whether it carries one of O(select[].own).
  returned: always
  type: dict
refusals:
  description:
    - C(name), C(code), C(text) and the C(candidates)' paths of each selector that got none.
    - C(code) is V(no_match), V(several), V(none_free), V(not_free), V(taken) or V(elsewhere).
  returned: always
  type: list
  elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.matryoshka.host.plugins.module_utils._block import answer
from ansible_collections.matryoshka.host.plugins.module_utils._block_identity import TRANSPORTS
from ansible_collections.matryoshka.host.plugins.module_utils._block_selector import REQUIRED
from ansible_collections.matryoshka.host.plugins.module_utils._command import run
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError

_TEXT: dict[str, Any] = {"type": "str"}
_NO: dict[str, Any] = {"type": "bool", "default": False}
_SELECTOR: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "path": _TEXT,
    "id": _TEXT,
    "model": _TEXT,
    "vendor": _TEXT,
    "serial": _TEXT,
    "wwn": _TEXT,
    "transport": {"type": "str", "choices": list(TRANSPORTS)},
    "rotational": {"type": "bool"},
    "size_min": _TEXT,
    "size_max": _TEXT,
    "empty": _NO,
    "partitions": _NO,
    "own": {"type": "list", "elements": "str", "default": []},
    "required": {"type": "str", "choices": list(REQUIRED), "default": "one"},
    "allow_used": _NO,
}
_WIPE: dict[str, Any] = {
    "serial": {"type": "str", "required": True},
    "signature": {"type": "str", "required": True},
}
ARGUMENTS: dict[str, Any] = {
    "select": {"type": "list", "elements": "dict", "default": [], "options": _SELECTOR},
    "wipe": {"type": "list", "elements": "dict", "default": [], "options": _WIPE},
    "fail": {"type": "bool", "default": True},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        found = answer(module.params, run)
    except HostError as error:
        module.fail_json(msg=str(error))
    if found["refusals"] and module.params["fail"]:
        module.fail_json(msg="\n".join(one["text"] for one in found["refusals"]), **found)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
