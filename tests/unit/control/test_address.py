"""Where a request comes from, and how tries are counted without Redis."""

import pytest

from control.core.address import client_address, grouped, networks
from control.throttle import Rule, Throttle
from schemas.errors import InvalidInput
from schemas.settings import Secret

OURS = networks("10.0.0.0/8, 2001:db8::1")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.1.2.3", ["198.51.100.7"], "198.51.100.7"),
        ("10.1.2.3", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("10.1.2.3", ["203.0.113.9, 198.51.100.7, 10.9.9.9"], "198.51.100.7"),
        ("10.1.2.3", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        ("10.1.2.3", ["198.51.100.7, not an address"], "10.1.2.3"),
        ("2001:db8::1", ["2001:db8:1::5"], "2001:db8:1::5"),
        ("::ffff:10.1.2.3", ["198.51.100.7"], "198.51.100.7"),
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", ["10.0.0.1"], "10.1.2.3"),
        ("", ["198.51.100.7"], ""),
    ],
)
def test_last_address_that_is_no_proxy_of_ours_is_the_clients(peer, forwarded, client):
    assert client_address(peer, forwarded, OURS) == client


def test_without_proxies_of_ours_nothing_forwarded_is_believed():
    assert client_address("10.1.2.3", ["198.51.100.7"], networks("")) == "10.1.2.3"


def test_ipv6_is_counted_by_its_network():
    assert grouped("2001:db8:1:2:3::4") == grouped("2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert grouped("2001:db8:1:3::4") != grouped("2001:db8:1:2::4")
    assert grouped("192.0.2.1") == "192.0.2.1"
    assert grouped("nonsense") == "nonsense"


def test_setting_that_is_no_network_is_told_with_its_name():
    with pytest.raises(InvalidInput, match="NHOOD_TRUSTED_PROXIES"):
        networks("10.0.0.0/8, nginx")


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture(params=["", "redis://127.0.0.1:9/0"], ids=["none", "away"])
async def counted(request):
    clock = Clock()
    throttle = Throttle(Secret(request.param), clock)
    yield throttle, clock
    await throttle.close()


RULE = Rule("x", 3, 60)


async def test_without_redis_this_process_counts(counted):
    throttle, clock = counted
    assert [await throttle.take(RULE, "a") for _ in range(5)] == [0, 0, 0, 60, 60]
    assert await throttle.take(RULE, "b") == 0
    clock.now += 45
    assert await throttle.take(RULE, "a") == 15
    clock.now += 15
    assert await throttle.take(RULE, "a") == 0


async def test_good_try_is_given_back_and_all_can_be_forgotten(counted):
    throttle, _ = counted
    for _ in range(10):
        assert await throttle.take(RULE, "a") == 0
        await throttle.give_back(RULE, "a")
    for _ in range(4):
        await throttle.take(RULE, "a")
    await throttle.clear(RULE, "a")
    assert await throttle.take(RULE, "a") == 0


async def test_subjects_do_not_run_into_each_other(counted):
    throttle, _ = counted
    for _ in range(3):
        await throttle.take(RULE, "ab", "c")
    assert await throttle.take(RULE, "a", "bc") == 0
    assert await throttle.take(RULE, "ab", "c") > 0
