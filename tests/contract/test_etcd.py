"""What only etcd can do to a store of it: passwords, pages, compaction, an empty prefix, keys of others."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from enforcer.datastore.apiconfig import ENVIRONMENT, ApiConfig
from enforcer.datastore.etcd import keys, listing, source
from enforcer.datastore.etcd.client import Client, EtcdError, Header, KeyValue, Page, Span
from enforcer.datastore.etcd.config import Endpoint, etcd_config
from enforcer.datastore.etcd.writer import EtcdWriter
from enforcer.datastore.updates import Listed
from enforcer.datastore.writer import StoreError
from enforcer.emergency import commit
from enforcer.emergency.act import Deed, acts_of
from enforcer.policy.resources import Resources
from tests.support.datastores import Following, etcd_store, nets
from tests.support.etcd import Etcd, Member, etcd, free_ports, network_set, wait_for
from tests.support.tcp_proxy import TcpProxy

BOTS = network_set("bots", "203.0.113.0/24")
OTHER_KEY = "/calico/resources/v3/projectcalico.org/clusterinformations/default"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Etcd]:
    with etcd(tmp_path) as running:
        yield running


def test_a_password_and_a_wrong_one(cluster: Etcd) -> None:
    cluster.put(BOTS)
    for words in (
        ("user", "add", "root:secret"),
        ("user", "grant-role", "root", "root"),
        ("user", "add", "felix:word"),
        ("role", "add", "calico"),
        ("role", "grant-permission", "calico", "read", "--prefix", keys.RESOURCES),
        ("user", "grant-role", "felix", "calico"),
        ("auth", "enable"),
    ):
        cluster.ctl(*words)
    cluster.flags += ["--user", "root:secret"]
    with Following(etcd_store(cluster.endpoints, etcdUsername="felix", etcdPassword="wrong")) as refused:
        assert refused.snapshot().faults
        assert "authentication failed, invalid user ID or password" in refused.store.state().problem
    with Following(etcd_store(cluster.endpoints)) as nameless:
        assert nameless.snapshot().faults
        assert "user name is empty" in nameless.store.state().problem
    with Following(etcd_store(cluster.endpoints, etcdUsername="felix", etcdPassword="word")) as following:
        assert nets(following.snapshot()) == {"bots": ["203.0.113.0/24"]}
        cluster.members[0].end()  # its tokens end with it
        cluster.members[0].start()
        wait_for(cluster.port, cluster.members[0])
        cluster.put(network_set("others", "192.0.2.0/24"))
        following.until(lambda loaded: len(nets(loaded)) == 2)


def test_an_operator_needs_to_write_below_one_prefix_only(cluster: Etcd) -> None:
    """As docs/emergency.md has it; who may not write gets one error."""
    prefix = f"{keys.RESOURCES}globalnetworksets/enforcer-"
    for words in (
        ("user", "add", "root:secret"),
        ("user", "grant-role", "root", "root"),
        ("role", "add", "reader"),
        ("role", "grant-permission", "reader", "read", "--prefix", keys.RESOURCES),
        ("role", "add", "operator"),
        ("role", "grant-permission", "operator", "write", "--prefix", prefix),
        ("user", "add", "alice:word"),
        ("user", "grant-role", "alice", "reader"),
        ("user", "grant-role", "alice", "operator"),
        ("user", "add", "felix:word"),
        ("user", "grant-role", "felix", "reader"),
        ("auth", "enable"),
    ):
        cluster.ctl(*words)
    deed = Deed(int(time.time()), "alice@adm", "flood", int(time.time()) + 3600)
    (made,) = acts_of([ip_network("192.0.2.1/32")], beside="bots", labels={"deny": "all"}, deed=deed)
    longer = replace(made, until_s=int(time.time()) + 7200)
    with writer_of(cluster, "felix") as reader, pytest.raises(StoreError, match="permission denied"):
        commit.put(reader, made)
    with writer_of(cluster, "alice") as writer:
        assert commit.put(writer, made).outcome is commit.Outcome.CREATED
        assert commit.put(writer, longer).outcome is commit.Outcome.CHANGED
        assert commit.put(writer, made).outcome is commit.Outcome.UNCHANGED
        assert commit.remove(writer, made.name, lambda held: True).outcome is commit.Outcome.DELETED
        with pytest.raises(StoreError, match="permission denied"):
            commit.put(writer, replace(made, name="bots"))


def writer_of(cluster: Etcd, user: str) -> EtcdWriter:
    settings = {"etcdEndpoints": cluster.endpoints, "etcdUsername": user, "etcdPassword": "word"}
    return EtcdWriter(etcd_config(ApiConfig(ENVIRONMENT, settings)))


def test_a_long_list_is_read_in_pages_of_one_revision(cluster: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_PAGE_BYTES", 3000)
    names = [f"set-{number:03}" for number in range(240)]
    for first in (0, 120):
        cluster.put_at_once(*(network_set(name, "192.0.2.0/24") for name in names[first : first + 120]))
    with Following(etcd_store(cluster.endpoints)) as following:
        assert list(nets(following.snapshot())) == names
        assert following.store.state().revision == str(cluster.revision())


@pytest.mark.parametrize("compacted", [False, True], ids=["its revision exists", "compacted meanwhile"])
def test_a_list_that_broke_goes_on_where_it_was(
    cluster: Etcd, compacted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page is read once, and what changed since the first one comes with the watch."""
    names = [f"set-{number:03}" for number in range(60)]
    cluster.put_at_once(*(network_set(name, "192.0.2.0/24") for name in names))
    monkeypatch.setattr(listing, "_PAGE_BYTES", 3000)
    original, read, late = Client.range, list[bytes](), list[bytes]()

    def breaking(self: Client, span: Span, **options: Any) -> Page:
        page = original(self, span, **options)
        if options.get("keys_only"):
            return page
        if len(read) == 3 and not late:
            late.append(span.first)
            cluster.put(network_set("set-000", "198.51.100.0/24"))
            cluster.delete("globalnetworksets/set-001")
            if compacted:
                cluster.ctl("compact", str(cluster.revision()))
            raise EtcdError("DEADLINE_EXCEEDED", "no answer in time")
        read.append(span.first)
        return page

    monkeypatch.setattr(Client, "range", breaking)
    monkeypatch.setattr(source, "relist_s", lambda _size: 0.0)
    with Following(etcd_store(cluster.endpoints)) as following:
        loaded = following.until(lambda loaded: "198.51.100.0/24" in nets(loaded).get("set-000", []))
        following.until(lambda loaded: list(nets(loaded)) == [name for name in names if name != "set-001"])
        assert not loaded.faults
    assert late
    assert compacted or late[0] in read
    assert (len(read) == len(set(read))) is not compacted


@pytest.mark.parametrize("compacted", [False, True], ids=["resumed", "compacted meanwhile"])
def test_changes_while_the_connection_was_cut_are_seen(
    cluster: Etcd, compacted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread: list[int] = []
    monkeypatch.setattr(source, "relist_s", lambda size: spread.append(size) or 0.0)
    cluster.put(BOTS, network_set("old", "192.0.2.0/24"))
    with TcpProxy(cluster.port) as proxy, Following(etcd_store(f"http://127.0.0.1:{proxy.port}")) as following:
        assert list(nets(following.snapshot())) == ["bots", "old"]
        with proxy.cut():
            cluster.put(network_set("new", "198.51.100.0/24"))
            cluster.delete("globalnetworksets/old")
            if compacted:
                cluster.ctl("compact", str(cluster.revision()))
            following.until_state(lambda store: not store.state().connected)
        following.until(lambda loaded: list(nets(loaded)) == ["bots", "new"])
        assert following.store.state().connected
        listed = {reason: count for reason, count in following.store.counts().resyncs.items() if count}
        assert listed == {"start": 1} | ({"compacted": 1} if compacted else {})
        assert bool(spread) is compacted
        assert all(200 < size < 1000 for size in spread), "the time depends on the size of the list before"


@pytest.fixture
def proxy(cluster: Etcd, tmp_path: Path) -> Iterator[Member]:
    """``etcd grpc-proxy`` in front of it."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    words = ["etcd", "grpc-proxy", "start", f"--endpoints={cluster.endpoints}", f"--listen-addr={address}"]
    started = Member([*words, f"--data-dir={tmp_path}/proxy"], f"http://{address}", tmp_path / "proxy.log")
    started.start()
    try:
        wait_for(port, started)
        yield started
    finally:
        started.end()


def test_a_grpc_proxy_in_front_of_it_is_followed_as_well(cluster: Etcd, proxy: Member) -> None:
    """It gives watches ids of its own, and answers reads from a cache."""
    cluster.put(BOTS)
    with Following(etcd_store(proxy.url)) as following:
        assert nets(following.snapshot()) == {"bots": ["203.0.113.0/24"]}
        cluster.put(network_set("others", "192.0.2.0/24"))
        following.until(lambda loaded: len(nets(loaded)) == 2)
        cluster.delete("globalnetworksets/bots")
        following.until(lambda loaded: list(nets(loaded)) == ["others"])
        cluster.ctl("del", "--prefix", "/calico/")
        following.until_state(lambda store: not store.state().connected)
        assert list(nets(following.snapshot())) == ["others"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_etcd_that_is_away_behind_a_grpc_proxy_is_noticed(
    cluster: Etcd, proxy: Member, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy lives, keeps the watches open, and goes on to answer from its cache what it may."""
    monkeypatch.setattr(source, "_LOOK_EVERY_S", 0.2)
    monkeypatch.setattr(source, "_LOOK_WITHIN_S", 1.0)
    (member,) = cluster.members
    cluster.put(BOTS)
    with Following(etcd_store(proxy.url)) as following:
        following.snapshot()
        contact = following.store.state().contact
        following.until_state(lambda store: store.state().contact > contact)
        member.send(number)
        following.until_state(lambda store: not store.state().connected)
        if number is signal.SIGKILL:
            member.start()
            wait_for(cluster.port, member)
        else:
            member.send(signal.SIGCONT)
        following.until_state(lambda store: store.state().connected)
        cluster.put(network_set("others", "192.0.2.0/24"))
        following.until(lambda loaded: len(nets(loaded)) == 2)


def test_all_objects_may_be_deleted_while_something_else_is_left(cluster: Etcd) -> None:
    cluster.put(BOTS)
    cluster.ctl("put", OTHER_KEY, "{}")
    with Following(etcd_store(cluster.endpoints)) as following:
        following.snapshot()
        cluster.delete("globalnetworksets/bots")
        assert following.until(lambda loaded: loaded.empty).faults == ()


def test_an_empty_datastore_is_not_believed(cluster: Etcd, tmp_path: Path) -> None:
    with Following(etcd_store(cluster.endpoints)) as new:
        assert source.EMPTIED in str(new.snapshot().faults[0].finding), "it may be another one, or wiped"
        cluster.put(BOTS)
        new.until(nets)
    with Following(etcd_store(cluster.endpoints, tmp_path / "state")) as following:
        following.snapshot()
        following.store.keep()
        cluster.ctl("del", "--prefix", "/calico/")
        following.until_state(lambda store: not store.state().connected)
        assert nets(following.snapshot())
    with Following(etcd_store(cluster.endpoints, tmp_path / "state")) as restarted:
        assert nets(restarted.snapshot()), "neither by a new agent"


@pytest.mark.parametrize("asked", [False, True], ids=["now and then", "when asked"])
def test_the_list_is_read_again(cluster: Etcd, monkeypatch: pytest.MonkeyPatch, asked: bool) -> None:
    """What a watch lost is back with it, and nothing is undone."""
    listed: list[int] = []
    original = source.EtcdSource._listed

    def counted(self: source.EtcdSource, client: Client) -> Listed:
        listed.append(1)
        return original(self, client)

    monkeypatch.setattr(source.EtcdSource, "_listed", counted)
    if not asked:
        monkeypatch.setattr(source, "_RELIST_EVERY_S", 0.1)
    cluster.put(BOTS)
    with Following(etcd_store(cluster.endpoints)) as following:
        following.snapshot()
        before = len(listed)
        if asked:
            following.store.refresh()
        following.until_state(lambda store: len(listed) > before)
        for number in range(5):
            cluster.put(network_set("bots", f"203.0.113.{number}/32"))
        following.until(lambda loaded: nets(loaded) == {"bots": ["203.0.113.4/32"]})
        cluster.delete("globalnetworksets/bots")
        cluster.put(network_set("late", "192.0.2.0/24"))
        following.until(lambda loaded: list(nets(loaded)) == ["late"])
        assert following.store.counts().resyncs["asked" if asked else "periodic"] >= 1


def test_only_what_counts_is_read(cluster: Etcd) -> None:
    """Not the profile that Calico's client makes up, not other nodes, not other kinds, not what is beside a prefix."""
    profile = {"apiVersion": "projectcalico.org/v3", "kind": "Profile", "spec": {}}
    node = {"apiVersion": "projectcalico.org/v3", "kind": "Node", "spec": {}}
    cluster.put(
        BOTS,
        profile | {"metadata": {"name": "kns.shop"}},
        profile | {"metadata": {"name": "projectcalico-default-allow"}},
        node | {"metadata": {"name": "jasper", "labels": {"rack": "1"}}},
        node | {"metadata": {"name": "other"}},
        network_set("partners", "192.0.2.0/24")
        | {"kind": "NetworkSet", "metadata": {"name": "p", "namespace": "shop"}},
    )
    cluster.put_text("workloadendpoints/shop/w", "{")
    cluster.put_text("globalnetworksetsandmore/x", "{")
    with Following(etcd_store(cluster.endpoints)) as following:
        loaded = following.snapshot()
        assert not loaded.faults
        found: Resources = loaded.resources
        assert [item.name for item in found.profiles] == ["kns.shop"]
        assert [item.name for item in found.nodes] == ["jasper"]
        assert [(item.namespace, item.name) for item in found.network_sets] == [("shop", "p")]
        cluster.put_text("networksets/nowhere", json.dumps(BOTS))
        (fault,) = following.until(lambda loaded: loaded.faults).faults
        assert str(fault.finding).startswith("etcd: networksets/nowhere: kind: expected NetworkSet")


def test_a_page_has_about_a_mebibyte() -> None:
    def page(number: int, size: int) -> Page:
        return Page(Header(1, 1, 1), (KeyValue(b"k", b"x" * size, 1),) * number, True)

    assert listing.next_limit(page(10, 100), 10) == 40
    assert listing.next_limit(page(10, 1 << 20), 10) == 1
    assert listing.next_limit(page(500, 100), 500) == 500
    assert listing.next_limit(page(0, 0), 40) == 40


def test_a_problem_of_several_members_is_said_once() -> None:
    a, b, c = (Endpoint(f"{name}:2379", True) for name in "abc")
    assert source._summary({b: "refused", a: "refused", c: "no answer in time"}) == (
        "https://a:2379, https://b:2379: refused; https://c:2379: no answer in time"
    )
