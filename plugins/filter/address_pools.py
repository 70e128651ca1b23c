# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: address ranges for every level of engines, apart from all that is taken."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.module_utils._address_input import parse
from ansible_collections.matryoshka.host.plugins.module_utils._address_pools import plan
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError


def address_pools(
    taken: Any, levels: Any, variables: Mapping[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    """The plan of :func:`plan` for what is ``taken``; the options are those of :func:`parse`.

    :param variables: by option the variable that a person set, for messages.
    :raises AnsibleFilterError: naming what is refused, or saying how much room is missing.
    """
    try:
        return plan(parse(taken, levels, **options))
    except HostError as error:
        raise AnsibleFilterError(_by_variable(str(error), variables or {})) from error
    except TypeError as error:
        raise AnsibleFilterError(f"address_pools: {error}") from error


def _by_variable(message: str, variables: Mapping[str, str]) -> str:
    for option, variable in variables.items():
        message = re.sub(rf"(?<![\w.]){re.escape(option)}(?=[\[:.])", variable, message)
    return message


class FilterModule:
    """Filters of the collection that are about address ranges."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"address_pools": address_pools}
