"""Who is at the other end of the status socket, by the kernel's word, and whether they may act."""

import os
import pwd
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass, replace

import trio

_CREDENTIALS = struct.Struct("iII")
"""struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The process that connected.

    ``user`` is what the journal calls its user. It is empty for a request that only reads, because finding the name may mean to ask
    a directory service, and reading must not wait for one.
    """

    uid: int
    gid: int
    pid: int
    user: str = ""


def caller_of(stream: trio.SocketStream) -> Caller:
    """Whoever connected to this Unix socket, as they were at that moment."""
    pid, uid, gid = _CREDENTIALS.unpack(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Caller(uid, gid, pid)


def named(caller: Caller) -> Caller:
    """``caller`` with the name of its user on this machine. Blocking."""
    try:
        return replace(caller, user=pwd.getpwuid(caller.uid).pw_name)
    except KeyError:
        return replace(caller, user=f"user {caller.uid}")


def groups_of(uid: int) -> frozenset[int]:
    """The groups that this machine says ``uid`` is in; what a process claims about itself is not asked. Blocking."""
    try:
        person = pwd.getpwuid(uid)
    except KeyError:
        return frozenset()
    return frozenset(os.getgrouplist(person.pw_name, person.pw_gid))


def may_act(uid: int, *, own: int, group: int | None, groups: Collection[int]) -> bool:
    """Whether ``uid``, a member of ``groups``, may do more than read: the daemon's own user, root, and members of its group."""
    return uid in (own, 0) or (group is not None and group in groups)
