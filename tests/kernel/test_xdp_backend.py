"""The XDP backend against the kernel: what is attached, what changes, what survives, what is left behind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from enforcer.backends.base import ApplyResult, EntryCount
from enforcer.backends.xdp import XdpBackend, generation
from enforcer.backends.xdp import manifest as manifests
from enforcer.backends.xdp.layout import ABI_VERSION, Pins
from enforcer.kernel.bpf import Link, attach_xdp, open_pinned
from enforcer.kernel.maps import Map
from enforcer.kernel.netlink import InterfaceState, interface
from enforcer.kernel.xdp import load_pass_program
from enforcer.plan import InterfacePlan, Plan, PlannedEntry
from enforcer.policy.nets import Nets
from enforcer.policy.resources import TCP, Failsafe
from enforcer.policy.ruletable import AddressMatch, Entry, IpSet, RuleTable
from enforcer.words import STAGE_OF_MODE, Action, Backend, Mode, Stage

from .conftest import NetnsPair
