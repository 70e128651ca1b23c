# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's side of a runner: keeps one job environment ready, and replaces it after each job.

Standard library only, Python 3.10 and newer.

=================  ====================================================================
module             concern
=================  ====================================================================
``cli``            the command line
``config``         ``/etc/matryoshka/runners/NAME.json``
``state``          ``/run/matryoshka/runners/NAME.json``
``locks``          one runner a data root, no pruning while a job runs
``clients``        runs the engine's clients, none of them in vain when the runner leaves
``engine``         the container engine on the host, by its command line
``environment``    what a job environment is made of
``cgroups``        where an environment's control groups are, what the kernel counts there
``meter``          what a job uses, which of its limits it meets
``verdict``        says that in words
``trust``          may a cache be used after the machine went down?
``causes``         errors of the system in words
``footing``        what has to answer below an environment
``containerd``     does the containerd below an engine answer?
``backoff``        how long to wait before something is tried again
``start``          what a runner holds while it runs
``ping``           asks an engine whether it is there
``inner``          does the engine inside an environment answer?
``firstprocess``   the first process of an environment, as the kernel sees it
``dataroot``       what an inner engine leaves on disk, and who holds it
``sweep``          takes away whatever is left of a runner
``supply``         makes environments and takes them away
``jobrun``         one job in one environment
``agents``         where jobs come from
``jobqueue``       the directory queue of the ``local`` agent
``runner``         the loop that ties them together
``submit``         hands a job to the directory queue and streams its log
``prune``          removes unused images and build cache, never while a job runs
``admin``          what a play does to a host whose runners may be at work
``report``         ``matryoshka status``
=================  ====================================================================
"""

from __future__ import annotations

SCHEMA = 1
"""Version of the configuration and state files' form."""
