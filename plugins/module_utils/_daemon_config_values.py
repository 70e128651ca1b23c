# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of single values in dockerd's configuration.

A :data:`Check` takes a value and yields a :class:`Problem` for each thing that is wrong
with it. Small ones are combined (:func:`items`, :func:`mapping`, :func:`record`), so
that a problem deep in a value is reported at its own place.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Union
from urllib.parse import urlsplit

from ansible_collections.matryoshka.host.plugins.module_utils import _networks
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError

Path = tuple[Union[str, int], ...]


@dataclass(frozen=True)
class Problem:
    """A refused value: where it is below the checked one, what it is, what is allowed."""

    path: Path
    value: object
    allowed: str

    def below(self, *parent: str | int) -> Problem:
        return Problem((*parent, *self.path), self.value, self.allowed)


Check = Callable[[object], Iterator[Problem]]

#: Sizes as Docker reads them (units.RAMInBytes): a number, optionally with a unit.
SIZE = re.compile(r"\d+(\.\d+)?\s?([kmgtp]i?b?|b)?", re.IGNORECASE)
#: Durations as Go reads them (time.ParseDuration).
DURATION = re.compile(r"(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+")
HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def dotted(path: Path) -> str:
    """``('runtimes', 'x', 'runtimeArgs', 0)`` as ``runtimes.x.runtimeArgs[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def meant(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` if a known word is close to ``word``, else nothing."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.75)
    return f"; did you mean {close[0]!r}?" if close else ""


def matches(pattern: str | re.Pattern[str], allowed: str) -> Check:
    """Text that ``pattern`` matches as a whole."""

    def check(value: object) -> Iterator[Problem]:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            yield Problem((), value, allowed)

    return check


def accepted(test: Callable[[str], object], allowed: str) -> Check:
    """Text that ``test`` takes: it neither raises ValueError nor returns False."""

    def check(value: object) -> Iterator[Problem]:
        try:
            ok = isinstance(value, str) and test(value) is not False
        except ValueError:
            ok = False
        if not ok:
            yield Problem((), value, allowed)

    return check


def boolean(value: object) -> Iterator[Problem]:
    """``true`` or ``false``, not text."""
    if not isinstance(value, bool):
        yield Problem((), value, "true or false")


def integer(low: int, high: int | None = None, also: Mapping[int, str] | None = None) -> Check:
    """A whole number in a range. ``also`` has further numbers and what they mean."""
    span = f"a whole number from {low} to {high}" if high is not None else f"a whole number of at least {low}"
    extra = also or {}
    allowed = span + "".join(f", or {number} ({meaning})" for number, meaning in extra.items())

    def check(value: object) -> Iterator[Problem]:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not (value in extra or (low <= value and (high is None or value <= high))):  # type: ignore[operator]
            yield Problem((), value, allowed)

    return check


def choice(*names: str, other: str | None = None, meaning: str = "", old: Sequence[str] = ()) -> Check:
    """One of ``names``, or text that the pattern ``other`` matches, described by ``meaning``.

    :param old: names that are taken but no longer suggested.
    """
    allowed = f"one of {', '.join(names)}" + (f", or {meaning}" if meaning else "")

    def check(value: object) -> Iterator[Problem]:
        if isinstance(value, str):
            if value in names or value in old or (other is not None and re.fullmatch(other, value)):
                return
            yield Problem((), value, allowed + meant(value, names))
        else:
            yield Problem((), value, allowed)

    return check


def items(check_item: Check, what: str) -> Check:
    """A list without repetitions, each item checked; ``what`` describes the items."""

    def check(value: object) -> Iterator[Problem]:
        if not isinstance(value, (list, tuple)):
            yield Problem((), value, f"a list of {what}")
            return
        for index, item in enumerate(value):
            wrong = False
            for problem in check_item(item):
                wrong = True
                yield problem.below(index)
            if not wrong and item in value[:index]:
                yield Problem((index,), item, "each item once")

    return check


def mapping(check_value: Check, what: str, check_key: Check | None = None) -> Check:
    """A mapping of any keys (or those that ``check_key`` takes), each value checked."""

    def check(value: object) -> Iterator[Problem]:
        if not isinstance(value, Mapping):
            yield Problem((), value, f"a mapping of {what}")
            return
        for key, item in value.items():
            if check_key is not None:
                for problem in check_key(key):
                    yield Problem((key,), key, f"as a name: {problem.allowed}")
            yield from (problem.below(key) for problem in check_value(item))

    return check


def record(fields: Mapping[str, Check], required: tuple[str, ...] = (), fold: bool = False) -> Check:
    """A mapping of known keys.

    :param fold: upper and lower case of keys are the same, as Go's JSON decoder has it
        for nested records.
    """
    names = {name.lower() if fold else name: name for name in fields}

    def check(value: object) -> Iterator[Problem]:
        if not isinstance(value, Mapping):
            yield Problem((), value, f"a mapping with the keys {', '.join(fields)}")
            return
        seen = set()
        for key, item in value.items():
            name = names.get(key.lower() if fold else key)
            if name is None:
                yield Problem((key,), item, f"one of the keys {', '.join(fields)}{meant(key, fields)}")
            elif name in seen:
                yield Problem((key,), item, f"{name} once")
            else:
                seen.add(name)
                yield from (problem.below(key) for problem in fields[name](item))
        for name in required:
            if name not in seen:
                yield Problem((), dict(value), f"a mapping that has {name}")

    return check


def from_input_error(parse: Callable[[str, object], object]) -> Check:
    """A check out of a parser that raises :class:`InputError`."""

    def check(value: object) -> Iterator[Problem]:
        try:
            parse("", value)
        except InputError as error:
            parts = [part for part in error.variable.split(".") if part]
            yield Problem(tuple(parts), error.value, error.allowed)

    return check


def pools(value: object) -> Iterator[Problem]:
    """``default-address-pools``, each by itself."""
    yield from items(from_input_error(_networks.parse_pool), "{base: 172.25.0.0/16, size: 24}")(value)


anything_text: Check = matches(r"(?s).*", "text, numbers and the like in quotes")
some_text: Check = matches(r"(?s).*\S.*", "text that isn't empty")
size: Check = matches(SIZE, "a size as text, such as 512MB or 10g")
size_or_nothing: Check = matches(
    re.compile(f"({SIZE.pattern})?", re.IGNORECASE), "a size as text, such as 512MB or 10g"
)
duration: Check = matches(DURATION, "a duration such as 90s, 10m or 48h")
absolute_path: Check = matches(r"/[^\0]*", "an absolute path")
ip_address: Check = accepted(ipaddress.ip_address, "an IP address")
ipv4_address: Check = accepted(ipaddress.IPv4Address, "an IPv4 address")
ipv6_address: Check = accepted(ipaddress.IPv6Address, "an IPv6 address")
ipv4_network: Check = from_input_error(lambda name, value: _networks.parse_network(name, value, 4))
ipv6_network: Check = from_input_error(lambda name, value: _networks.parse_network(name, value, 6))
bip: Check = from_input_error(lambda name, value: _networks.parse_bip(name, value, 4))
bip6: Check = from_input_error(lambda name, value: _networks.parse_bip(name, value, 6))


def host_and_port(text: str, port_needed: bool = False) -> bool:
    """Whether ``text`` is ``host``, ``host:port``, ``[ipv6]`` or ``[ipv6]:port``."""
    found = re.fullmatch(r"(\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]/]+)):?(?P<port>(?<=:)\d+)?", text)
    if not found or text.endswith(":"):
        return False
    if found["six"]:
        ipaddress.IPv6Address(found["six"])
    elif not HOST_NAME.fullmatch(found["name"]):
        return False
    return 1 <= int(found["port"]) <= 65535 if found["port"] else not port_needed


def _socket(text: str) -> bool:
    scheme, separator, rest = text.partition("://")
    if not separator:
        return False
    if scheme == "tcp":
        return (bool(re.fullmatch(r":\d+", rest)) and 1 <= int(rest[1:]) <= 65535) or host_and_port(rest)
    return (scheme == "unix" and rest.startswith("/")) or (scheme == "fd" and "/" not in rest)


def _mirror(text: str) -> bool:
    url = urlsplit(text)
    plain = not (url.query or url.fragment or url.username or url.password)
    return url.scheme in ("http", "https") and plain and host_and_port(url.netloc)


def _insecure_registry(text: str) -> bool:
    if "/" in text:
        ipaddress.ip_network(text, strict=False)
        return "://" not in text
    return host_and_port(text)


def _proxy(text: str) -> bool:
    url = urlsplit(text)
    return url.scheme in ("http", "https", "socks5", "socks5h") and bool(url.hostname) and url.port != 0


socket_address: Check = accepted(_socket, "fd://, unix:///run/docker.sock or tcp://ADDRESS:PORT")
mirror: Check = accepted(_mirror, "http(s)://HOST[:PORT][/PATH] without user, query and fragment")
insecure_registry: Check = accepted(
    _insecure_registry, "HOST[:PORT] or a network such as 10.1.0.0/16, without a scheme"
)
proxy: Check = accepted(_proxy, "a proxy's URL such as http://proxy.example.com:3128")
listen_address: Check = accepted(lambda text: host_and_port(text, port_needed=True), "ADDRESS:PORT")
key_value: Check = matches(r"[^=\s][^=]*=.*", "NAME=VALUE")
