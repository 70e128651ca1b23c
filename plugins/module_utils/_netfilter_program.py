# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps owned chains, sets and the jumps to them as a file says: ``apply|check|remove [--path FILE]``.

A program of its own (standard library, Python 3.10 or newer) for boot and engine restarts; module
``netfilter_rules`` imports it. What is wanted is first loaded into an empty network namespace by the
same programs and read back. So the kernel has checked every rule before a live one is touched, and
both sides are compared in one spelling. What came of it is remembered for the same data, kernel and
programs: a boot and every start of the engine wait for this program.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count, pairwise
from typing import Any, NamedTuple

PATH = "/etc/matryoshka/firewall.json"
#: What was wanted last, in the kernel's spelling.
MEMORY = "/var/cache/matryoshka/firewall.json"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FAMILIES = ("ipv4", "ipv6")
BACKENDS = ("nft", "legacy")
#: Chains that every table has, or may have.
BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
ATTEMPTS = 4
_STEMS = {"ipv4": "iptables", "ipv6": "ip6tables"}
_LEGACY_TABLES = {"ipv4": "/proc/net/ip_tables_names", "ipv6": "/proc/net/ip6_tables_names"}

#: Rules by table and chain, in the spelling of ``iptables-save`` without ``-A CHAIN``.
Tables = dict[str, dict[str, list[str]]]
Run = Callable[..., Any]
Read = Callable[[str], Any]


class Failed(Exception):
    """A program can't do what is needed. The message says which and what it said."""


class Missing(Failed):
    """A program isn't installed."""


class Refused(Failed):
    """A rule, hook or entry that the kernel or its programs don't take."""

    def __init__(self, where: str, text: str, said: str) -> None:
        super().__init__(f"{where}: {text!r} is refused: {said}")
        self.where, self.text, self.said = where, text, said


class Done(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    err: str


class Set(NamedTuple):
    """A set of ipset: its type, family and room, and what is in it."""

    kind: str
    family: str
    room: int
    entries: frozenset[str]


class Live(NamedTuple):
    """What the kernel has: tables by backend and family, owned sets, and whether the other backend has rules.

    ``last`` names the owned chains that are to be jumped to after all other rules, not before them.
    """

    tables: dict[tuple[str, str], Tables]
    sets: dict[str, Set]
    both_loaded: bool
    last: frozenset[str] = frozenset()


class Plan(NamedTuple):
    """What is to be done, as command lines with their input, and what it was made from."""

    backend: str
    families: tuple[str, ...]
    live: Live
    wanted: Live
    missing: list[tuple[str, str, str]]
    steps: list[tuple[list[str], str]]


def run(argv: Sequence[str], *, stdin: str = "", check: bool = False) -> Done:
    """Run a program to its end; its code isn't judged."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": SEARCH_PATH}
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, errors="replace", env=environment, check=check
        )
    except FileNotFoundError:
        return Done(127, "", f"{argv[0]}: not found in {SEARCH_PATH}")
    return Done(done.returncode, done.stdout, done.stderr)


def read(path: str) -> str | None:
    """A file's text; None if it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None


def ask(run: Run, *argv: str, stdin: str = "") -> str:
    """What a program printed.

    :raises Missing: it isn't installed.
    :raises Failed: it ended with an error.
    """
    done = run(list(argv), stdin=stdin, check=False)
    if done.code == 127:
        raise Missing(f"{argv[0]} is needed and isn't installed")
    if done.code:
        raise Failed(f"{' '.join(argv)} ended with {done.code}: {(done.err or done.out).strip()}")
    return str(done.out)


def program(backend: str, family: str, what: str) -> str:
    """The name of a program, such as ``ip6tables-nft-save``."""
    return f"{_STEMS[family]}-{backend}-{what}"


def own_backend(run: Run) -> str:
    """Which backend the command ``iptables`` has, which is what an engine calls."""
    return "nft" if "nf_tables" in ask(run, "iptables", "-V") else "legacy"


def ipv6_state(read: Read) -> str:
    """``none`` without IPv6 in the kernel, ``off`` if it is disabled everywhere, else ``on``."""
    addresses = read("/proc/net/if_inet6")
    if addresses is None:
        return "none"
    scopes = [read(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6") or "" for scope in ("all", "default")]
    return "off" if not addresses.strip() and all(flag.strip() == "1" for flag in scopes) else "on"


def of_family(item: Mapping[str, Any], family: str) -> bool:
    return family in (item.get("families") or FAMILIES)


def wanted_rules(
    data: Mapping[str, Any], family: str
) -> dict[str, tuple[list[str], list[tuple[str, str, str]]]]:
    """By table: chains to declare, and rules as (where it is in ``data``, chain, text)."""
    tables: dict[str, tuple[list[str], list[tuple[str, str, str]]]] = {}
    for index, chain in enumerate(data["chains"]):
        if of_family(chain, family):
            chains, rules = tables.setdefault(chain["table"], ([], []))
            chains.append(chain["name"])
            rules += [
                (f"chains[{index}].rules[{number}]", chain["name"], rule["rule"])
                for number, rule in enumerate(chain["rules"])
                if of_family(rule, family)
            ]
    for index, hook in enumerate(data["hooks"]):
        if of_family(hook, family):
            chains, rules = tables.setdefault(hook["table"], ([], []))
            if hook["chain"] not in (*BUILT_IN, *chains):
                chains.append(hook["chain"])
            text = f"{hook.get('match') or ''} -j {hook['jump']}".strip()
            rules.append((f"hooks[{index}]", hook["chain"], text))
    return tables


def create_line(name: str, wanted: Set) -> str:
    return f"create {name} {wanted.kind} family {wanted.family} maxelem {wanted.room}"


def room_for(entries: int) -> int:
    """Entries that a set has room for: twice what is wanted, at least ipset's default."""
    return max(65536, 1 << (2 * entries).bit_length())


def canonical(data: Mapping[str, Any], backend: str, families: Sequence[str], run: Run) -> dict[str, str]:
    """Load what is wanted where nothing is, and read it back: texts by family, and of ``sets``.

    :raises Refused: the first entry, rule or hook that isn't taken.
    """
    texts = {"sets": _canonical_sets(data, families, run)}
    for family in families:
        restore = program(backend, family, "restore")
        tables = wanted_rules(data, family)
        text = "".join(
            restore_text(table, chains, [f"-A {chain} {rule}" for _where, chain, rule in rules])
            for table, (chains, rules) in tables.items()
        )
        done = run([restore], stdin=text, check=False)
        if done.code == 127:
            raise Missing(f"{restore} is needed and isn't installed")
        if done.code:
            for table, (chains, rules) in tables.items():
                for where, chain, rule in rules:
                    one = run(
                        [restore], stdin=restore_text(table, chains, [f"-A {chain} {rule}"]), check=False
                    )
                    if one.code:
                        raise Refused(where, rule, f"{family}: {complaint(one.err)}")
            raise Refused("chains", ", ".join(tables), f"{family}: {complaint(done.err)}")
        texts[family] = ask(run, program(backend, family, "save"))
    return texts


def complaint(text: str) -> str:
    """What a program said, on one line, without its name, its own line numbers and its hints."""
    kept = []
    for line in text.splitlines():
        said = re.sub(
            r"^\S+ v[\d.]+(?: \(\w+\))?: *|^\S+-restore: *|^line \d+: *(?!failed)", "", line.strip()
        )
        said = re.sub(r"^line \d+ failed$", "the kernel doesn't take it here", said)
        if said and not re.match(r"Error occurred at line|Try `", said):
            kept.append(said)
    return " ".join(kept) or "no reason"


def _canonical_sets(data: Mapping[str, Any], families: Sequence[str], run: Run) -> str:
    lines: list[tuple[str, str, str]] = []
    for index, item in enumerate(data["sets"]):
        if item["family"] == "inet" or "ipv6" in families:
            head = Set(item["type"], item["family"], room_for(len(item["entries"])), frozenset())
            lines.append((f"sets[{index}]", item["name"], create_line(item["name"], head)))
            lines += [
                (f"sets[{index}].entries[{number}]", entry, f"add {item['name']} {entry}")
                for number, entry in enumerate(item["entries"])
            ]
    if not lines:
        return ""
    text = "".join(f"{line}\n" for _where, _shown, line in lines)
    done = run(["ipset", "-exist", "restore"], stdin=text, check=False)
    if done.code == 127:
        raise Missing("ipset is needed and isn't installed")
    if done.code:
        at = re.search(r"Error in line (\d+): *", done.err)
        where, shown, _line = lines[int(at[1]) - 1] if at else ("sets", "", "")
        raise Refused(where, shown, complaint(done.err[at.end() :] if at else done.err))
    return ask(run, "ipset", "save")


def restore_text(table: str, chains: Sequence[str], lines: Sequence[str]) -> str:
    """Input of ``iptables-restore``; chains are made, or emptied."""
    body = [f":{chain} - [0:0]" for chain in chains] + list(lines)
    return "\n".join([f"*{table}", *body, "COMMIT", ""])


def parse_save(text: str) -> Tables:
    """The output of ``iptables-save``."""
    tables: Tables = {}
    chains: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            chains = tables.setdefault(line[1:].strip(), {})
        elif line.startswith(":"):
            chains.setdefault(line[1:].split(" ", 1)[0], [])
        elif line.startswith("-A "):
            chain, _space, rule = line[3:].partition(" ")
            chains.setdefault(chain, []).append(rule.strip())
    return tables


def parse_sets(text: str) -> dict[str, Set]:
    """The output of ``ipset save``."""
    heads: dict[str, list[str]] = {}
    entries: dict[str, set[str]] = {}
    for line in text.splitlines():
        word, _space, rest = line.partition(" ")
        name, _space, rest = rest.partition(" ")
        if word == "create":
            heads[name] = rest.split()
        elif word == "add":
            entries.setdefault(name, set()).add(rest.strip())
    found = {}
    for name, (kind, *words) in heads.items():
        options = dict(pairwise(words))
        room = int(options.get("maxelem", 0))
        found[name] = Set(kind, options.get("family", ""), room, frozenset(entries.get(name, ())))
    return found


def owns_chain(owner: str, chain: str) -> bool:
    return chain.startswith(f"{owner.upper()}-")


def jump_of(rule: str) -> str | None:
    """The chain or target that a rule jumps or goes to."""
    try:
        words = shlex.split(rule)
    except ValueError:
        words = rule.split()
    return next((after for word, after in pairwise(words) if word in ("-j", "-g")), None)


def is_hook(owner: str, rule: str) -> bool:
    """Whether a rule jumps to an owned chain."""
    return f"{owner.upper()}-" in rule and owns_chain(owner, jump_of(rule) or "")


def has_others(owner: str, tables: Tables) -> bool:
    """Whether there are rules that aren't the owner's."""
    return any(
        not owns_chain(owner, chain) and not is_hook(owner, rule)
        for chains in tables.values()
        for chain, rules in chains.items()
        for rule in rules
    )


def look(owner: str, backend: str, families: Sequence[str], run: Run, read: Read) -> Live:
    """What the kernel has of tables and owned sets."""
    tables: dict[tuple[str, str], Tables] = {}
    both_loaded = False
    other = BACKENDS[1 - BACKENDS.index(backend)]
    for family in families:
        tables[backend, family] = parse_save(ask(run, program(backend, family, "save")))
        if other == "legacy" and not (read(_LEGACY_TABLES[family]) or "").strip():
            continue
        done = run([program(other, family, "save")], check=False)
        if done.code == 0:
            tables[other, family] = parse_save(done.out)
            drops = re.search(r"^:\S+ DROP ", done.out, re.MULTILINE) is not None
            both_loaded |= drops or has_others(owner, tables[other, family])
    listed = run(["ipset", "list", "-n"], check=False)
    names = listed.out.split() if listed.code == 0 else []
    sets = {}
    for name in names:
        if name.startswith(f"{owner}-"):
            sets.update(parse_sets(ask(run, "ipset", "save", name)))
    return Live(tables, sets, both_loaded)


def split_hooks(want: Sequence[str], last: frozenset[str]) -> tuple[list[str], list[str]]:
    """The jumps that come before a chain's other rules, and those after them."""
    final = [rule for rule in want if jump_of(rule) in last]
    return [rule for rule in want if rule not in final], final


def in_place(have: Sequence[str], want: Sequence[str], last: frozenset[str]) -> bool:
    """Whether a chain begins and ends with the jumps that it should begin and end with."""
    first, final = split_hooks(want, last)
    ends = list(have[len(have) - len(final) :]) == final
    return len(have) >= len(want) and list(have[: len(first)]) == first and ends


def table_text(
    owner: str,
    table: str,
    live: Mapping[str, list[str]],
    wanted: Mapping[str, list[str]],
    last: frozenset[str] = frozenset(),
) -> str:
    """Input of ``iptables-restore --noflush`` that makes the owned part of ``live`` as ``wanted``."""
    refill = [chain for chain in wanted if owns_chain(owner, chain) and live.get(chain) != wanted[chain]]
    gone = [chain for chain in live if owns_chain(owner, chain) and chain not in wanted]
    declared, first, placed = list(refill), [], []
    for chain in dict.fromkeys((*live, *wanted)):
        if owns_chain(owner, chain):
            continue
        if chain not in live and wanted[chain] and chain not in BUILT_IN:
            declared.append(chain)
        have, want = live.get(chain, []), wanted.get(chain, [])
        hooks = [rule for rule in have if is_hook(owner, rule)]
        before, after = split_hooks(want, last)
        if hooks != [*before, *after] or not in_place(have, want, last):
            first += [f"-D {chain} {rule}" for rule in hooks]
            placed += [f"-I {chain} {number} {rule}" for number, rule in enumerate(before, 1)]
            placed += [f"-A {chain} {rule}" for rule in after]
    refilled = [f"-A {chain} {rule}".strip() for chain in refill for rule in wanted[chain]]
    emptied = [f"{letter} {chain}" for letter in ("-F", "-X") for chain in gone]
    lines = [*first, *refilled, *placed, *emptied]
    return restore_text(table, declared, lines) if declared or lines else ""


def rule_steps(owner: str, live: Live, wanted: Live) -> list[tuple[list[str], str]]:
    """One step for each backend and family that differs."""
    steps = []
    for key in dict.fromkeys((*live.tables, *wanted.tables)):
        have, want = live.tables.get(key, {}), wanted.tables.get(key, {})
        text = "".join(
            table_text(owner, table, have.get(table, {}), want.get(table, {}), wanted.last)
            for table in dict.fromkeys((*have, *want))
        )
        if text:
            steps.append(([program(*key, "restore"), "--noflush", "--wait"], text))
    return steps


def all_steps(owner: str, live: Live, wanted: Live) -> list[tuple[list[str], str]]:
    """Sets, then rules, then what no rule needs any more.

    A set is replaced by a swap with a new one. One whose type changes can't be swapped: rules use a
    stand-in until it is made anew.
    """
    fill, after, stand_ins = [], [], {}
    spares = (name for name in map(f"{owner}-~{{}}".format, count()) if name not in live.sets)
    for name, new in wanted.sets.items():
        old = live.sets.get(name)
        if old and (old.kind, old.family, old.entries) == (new.kind, new.family, new.entries):
            continue
        target = name if old is None else next(spares)
        fill += _made(target, new)
        if old and (old.kind, old.family) == (new.kind, new.family):
            fill += [f"swap {target} {name}", f"destroy {target}"]
        elif old:
            stand_ins[name] = target
            after += [f"destroy {name}", *_made(name, new)]
    gone = [*stand_ins.values(), *(name for name in live.sets if name not in wanted.sets)]
    meanwhile = Live(
        {key: _renamed(tables, stand_ins) for key, tables in wanted.tables.items()},
        wanted.sets,
        False,
        wanted.last,
    )
    steps = [_ipset(fill), *rule_steps(owner, live, meanwhile)]
    if stand_ins:
        steps += [_ipset(after), *rule_steps(owner, meanwhile, wanted)]
    steps.append(_ipset([f"destroy {name}" for name in gone]))
    return [step for step in steps if step[1]]


def _made(name: str, wanted: Set) -> list[str]:
    return [create_line(name, wanted), *(f"add {name} {entry}" for entry in sorted(wanted.entries))]


def _ipset(lines: Sequence[str]) -> tuple[list[str], str]:
    return ["ipset", "restore"], "".join(f"{line}\n" for line in lines)


def _renamed(tables: Tables, names: Mapping[str, str]) -> Tables:
    def renamed(rule: str) -> str:
        return " ".join(names.get(word, word) for word in rule.split(" "))

    return {
        table: {chain: [renamed(rule) for rule in rules] for chain, rules in chains.items()}
        for table, chains in tables.items()
    }


def chosen(data: Mapping[str, Any], read: Read) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The families that rules are wanted for, and those that the kernel has."""
    state = ipv6_state(read)
    use = state == "on" and data["ipv6"] != "false"
    return (FAMILIES if use else FAMILIES[:1]), (FAMILIES[:1] if state == "none" else FAMILIES)


def circumstances(asked: str) -> str:
    """Names what decides about the answer to ``asked``: the kernel, and the programs that talk to it."""
    found = [os.uname().release, asked]
    for name in ("iptables-nft", "iptables-legacy", "ipset"):
        place = shutil.which(name, path=SEARCH_PATH)
        about = os.stat(place) if place else None
        found.append(f"{name} {about.st_size} {about.st_mtime_ns}" if about else name)
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def remembered(memory: str | None, of: str) -> dict[str, Any] | None:
    """The answer of the same circumstances; None if there is none. A power cut may have left half a file."""
    try:
        kept = json.loads((read(memory) if memory else None) or "")
    except ValueError:
        return None
    right = isinstance(kept, dict) and kept.get("of") == of and isinstance(kept.get("answer"), dict)
    return dict(kept["answer"]) if right else None


def remember(memory: str, of: str, answer: Mapping[str, Any]) -> None:
    """Keep an answer; where that can't be written, it is asked for again. One at a time, see :func:`locked`."""
    new = f"{memory}.new"
    try:
        os.makedirs(os.path.dirname(memory), mode=0o755, exist_ok=True)
        with open(
            os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as stream:
            json.dump({"of": of, "answer": answer}, stream)
        os.rename(new, memory)
    except OSError:
        with suppress(OSError):
            os.unlink(new)


def in_the_kernels_spelling(asked: str, run: Run, inner: Sequence[str]) -> dict[str, Any]:
    """What :func:`inside` answers in an empty network namespace."""
    answer: dict[str, Any] = json.loads(ask(run, "unshare", "--net", "--", *inner, stdin=asked))
    if "refused" in answer:
        raise Refused(*answer["refused"])
    if "missing" in answer:
        raise Missing(answer["missing"])
    if "failed" in answer:
        raise Failed(answer["failed"])
    return answer


def wanted_live(
    data: Mapping[str, Any],
    backend: str,
    families: Sequence[str],
    run: Run,
    inner: Sequence[str],
    memory: str | None = None,
) -> Live:
    """What is wanted, in the kernel's spelling.

    :param inner: the command line of :func:`inside`.
    :param memory: file with the last answer, which isn't asked for again in the same circumstances.
    """
    if not (data["sets"] or data["chains"] or data["hooks"]):
        return Live({}, {}, False)
    asked = json.dumps({"data": data, "backend": backend, "families": list(families)})
    of = circumstances(asked) if memory else ""
    answer = remembered(memory, of)
    if answer is None:
        answer = in_the_kernels_spelling(asked, run, inner)
        if memory:
            remember(memory, of, answer)
    tables = {(backend, family): parse_save(answer[family]) for family in families}
    last = frozenset(hook["jump"] for hook in data["hooks"] if hook.get("position") == "last")
    return Live(tables, parse_sets(answer["sets"]), False, last)


def inside() -> None:
    """Answer on standard output what :func:`canonical` finds for standard input."""
    asked = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = canonical(asked["data"], asked["backend"], asked["families"], run)
    except Refused as error:
        answer = {"refused": [error.where, error.text, error.said]}
    except Missing as error:
        answer = {"missing": str(error)}
    except Failed as error:
        answer = {"failed": str(error)}
    json.dump(answer, sys.stdout)


def without_missing(
    data: Mapping[str, Any], live: Live, wanted: Live
) -> tuple[Live, list[tuple[str, str, str]]]:
    """What is wanted without hooks in chains that aren't there and aren't to be made, and those hooks."""
    created = {(hook["table"], hook["chain"]) for hook in data["hooks"] if hook.get("create")}
    tables, missing = {}, []
    for key, found in wanted.tables.items():
        have = live.tables.get(key, {})
        tables[key] = {table: dict(chains) for table, chains in found.items()}
        for table, chains in found.items():
            for chain, rules in chains.items():
                known = chain in BUILT_IN or (table, chain) in created or chain in have.get(table, {})
                if rules and not known and not owns_chain(data["owner"], chain):
                    del tables[key][table][chain]
                    missing.append((key[1], table, chain))
    return wanted._replace(tables=tables), missing


def make_plan(
    data: Mapping[str, Any], run: Run, read: Read, inner: Sequence[str], memory: str | None = None
) -> Plan:
    """Compare what is wanted with what is there.

    :param memory: see :func:`wanted_live`.
    :raises Failed: a program is missing or doesn't work.
    :raises Refused: something wanted isn't taken.
    """
    backend = own_backend(run) if data["backend"] == "auto" else data["backend"]
    families, managed = chosen(data, read)
    wanted = wanted_live(data, backend, families, run, inner, memory)
    return again(data, Plan(backend, families, Live({}, {}, False), wanted, [], []), managed, run, read)


def again(data: Mapping[str, Any], plan: Plan, managed: Sequence[str], run: Run, read: Read) -> Plan:
    """The plan for what is there now."""
    live = look(data["owner"], plan.backend, managed, run, read)
    wanted, missing = without_missing(data, live, plan.wanted)
    return plan._replace(live=live, missing=missing, steps=all_steps(data["owner"], live, wanted))


def carry_out(data: Mapping[str, Any], plan: Plan, run: Run, read: Read) -> None:
    """Do what is planned and look again, until nothing differs.

    Others change rules too: a step that failed because of that is planned anew.

    :raises Failed: something differs still.
    """
    said = "others change the rules at the same time"
    managed = chosen(data, read)[1]
    for _attempt in range(ATTEMPTS):
        if not plan.steps:
            return
        for argv, text in plan.steps:
            done = run(argv, stdin=text, check=False)
            if done.code:
                said = f"{' '.join(argv)} ended with {done.code}: {(done.err or done.out).strip()}"
                break
        plan = again(data, plan, managed, run, read)
    if plan.steps:
        raise Failed(said)


@contextmanager
def locked(owner: str, directory: str = "/run") -> Iterator[None]:
    """One at a time."""
    with open(os.path.join(directory, f"{owner}-firewall.lock"), "w", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def emptied(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same owner and backend with nothing wanted."""
    return {**data, "sets": [], "chains": [], "hooks": []}


def differences(plan: Plan) -> list[str]:
    """What is to be done, one line for each rule and entry."""
    return [
        f"{argv[0]}: {line}"
        for argv, text in plan.steps
        for line in text.splitlines()
        if line[0] not in "*:" and line != "COMMIT"
    ]


def say(text: str, stream: Any = None) -> None:
    """A line for the journal, or for who called."""
    (stream or sys.stdout).write(f"{text}\n")


def tell(plan: Plan) -> None:
    """What is left out, and what will be done, for the journal."""
    for family, table, chain in plan.missing:
        say(f"{family}: {table} has no chain {chain}; its hook is left out")
    shown = differences(plan)
    for line in shown[:50]:
        say(line)
    if len(shown) > 50:
        say(f"and {len(shown) - 50} more")


def main(arguments: Sequence[str]) -> int:
    """The program."""
    command = arguments[0] if arguments else ""
    if command == "canonical":
        inside()
        return 0
    given = len(arguments) == 3 and arguments[1] == "--path"
    path = arguments[2] if given else PATH
    if command not in ("apply", "check", "remove") or not (given or len(arguments) == 1):
        say("usage: apply|check|remove [--path FILE]", sys.stderr)
        return 2
    try:
        data = json.loads(read(path) or "")
    except ValueError:
        say(f"{path}: no JSON is there", sys.stderr)
        return 2
    if command == "remove":
        data = emptied(data)
    inner = [sys.executable, "-I", os.path.abspath(__file__), "canonical"]
    try:
        with locked(data["owner"]):
            plan = make_plan(data, run, read, inner, MEMORY if command == "apply" else None)
            tell(plan)
            if command == "check":
                return 1 if plan.steps else 0
            try:
                carry_out(data, plan, run, read)
            except Failed:
                # Whatever was remembered: the kernel itself says what is wanted.
                with suppress(OSError):
                    os.unlink(MEMORY)
                carry_out(data, make_plan(data, run, read, inner, MEMORY), run, read)
    except (Failed, OSError) as error:
        say(str(error), sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
