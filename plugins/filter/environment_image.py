# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: the name of an environment image, from its recipe."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.module_utils._environment_image import (
    parse_recipe,
    reference,
)
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError, InputError


def environment_image_reference(
    recipe: Mapping[str, Any], prefix: str = "runner_image_", suites: Collection[str] = ()
) -> dict[str, str]:
    """The image's name and the hash of its recipe, as module ``environment_image`` computes them.

    :param prefix: what the names of a person's variables begin with, for messages.
    :param suites: the suites that are known; empty takes any.
    :raises AnsibleFilterError: naming a value of the recipe that is refused.
    """
    if not isinstance(recipe, Mapping):
        raise AnsibleFilterError(f"environment_image_reference: {recipe!r} is refused; allowed: a recipe")
    try:
        if suites and recipe.get("suite") not in suites:
            raise InputError(
                f"{prefix}suite",
                recipe.get("suite"),
                f"{', '.join(suites)} (empty takes the host's own release)",
            )
        names = reference(parse_recipe(recipe, prefix))
    except HostError as error:
        raise AnsibleFilterError(str(error)) from error
    return {"reference": names.reference, "sha256": names.sha256}


class FilterModule:
    """Filters of the collection that are about environment images."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"environment_image_reference": environment_image_reference}
