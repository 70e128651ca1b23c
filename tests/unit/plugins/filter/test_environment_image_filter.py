# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter names an image as the module does, and refuses what it refuses."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.filter.environment_image import FilterModule
from ansible_collections.matryoshka.host.plugins.module_utils._environment_image import (
    parse_recipe,
    reference,
)
from support.recipes import recipe

name = FilterModule().filters()["environment_image_reference"]


def test_the_modules_name() -> None:
    names = reference(parse_recipe(recipe()))
    assert name(recipe()) == {"reference": names.reference, "sha256": names.sha256}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (recipe(base="debian:13"), r"runner_image_base: 'debian:13' is refused; allowed: .*name@sha256"),
        ("debian", "'debian' is refused"),
    ],
)
def test_refused(value: object, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        name(value)


def test_prefix() -> None:
    with pytest.raises(AnsibleFilterError, match=r"^image\.suite: "):
        name(recipe(suite="X"), prefix="image.")


def test_suites() -> None:
    assert name(recipe(), suites=["bookworm", "trixie"]) == name(recipe())
    with pytest.raises(
        AnsibleFilterError, match=r"runner_image_suite: 'sid' is refused; allowed: bookworm, trixie"
    ):
        name(recipe(suite="sid"), suites={"bookworm": {}, "trixie": {}})
