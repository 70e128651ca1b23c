# SPDX-License-Identifier: GPL-3.0-or-later
"""Where ``ContainerHost`` was at first."""

from container_host import ContainerHost as ContainerHost
