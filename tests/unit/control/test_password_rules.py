"""Which passwords are taken, and what hashing costs."""

import asyncio
from collections import Counter

import argon2
import pytest

from control import passwords
from control.core.passwords import CHARS_MAX, check, normal
from control.passwords import Passwords
from schemas.errors import DependencyDown, InvalidInput

KNOWN = ("ada.lovelace@acme.example", "Ada Lovelace")


@pytest.mark.parametrize(
    "password", ["plum orbit kettle fjord", "x7Kp2mQ9vL4t", "größer als jeder 漢字 Drache"]
)
def test_good_password_is_taken(password):
    check(password, KNOWN)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "fewer than 12"),
        ("x7Kp2mQ9vL4", "fewer than 12"),
        ("x7Kp2mQ9vL4t" * 30, f"more than {CHARS_MAX}"),
        ("password1234", "easily guessed"),
        ("qwertyuiop12", "easily guessed"),
        ("aaaaaaaaaaaaaaaaaaaaaaaa", "easily guessed"),
        ("ada.lovelace@acme.example", "easily guessed"),
        ("AdaLovelace1", "easily guessed"),
        ("Summer2026!!", "easily guessed"),
    ],
)
def test_weak_password_is_refused_with_a_reason_and_without_itself(password, why):
    with pytest.raises(InvalidInput, match=why) as caught:
        check(password, KNOWN)
    (problem,) = caught.value.problems
    assert (problem.place, problem.code) == ("password", "weak_password")
    assert problem.mend
    assert password not in caught.value.public


def test_two_ways_to_type_a_character_are_one_password():
    assert normal("Zu\u0308rich ligature \ufb01") == normal("Z\u00fcrich ligature fi")


async def test_hash_is_argon2id_with_owasps_parameters():
    hashed = await Passwords().hash("plum orbit kettle fjord")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    found = Passwords()
    assert await found.matches(hashed, "plum orbit kettle fjord")
    assert not await found.matches(hashed, "plum orbit kettle fjor")
    assert not await found.matches("no hash at all", "plum orbit kettle fjord")


async def test_hash_of_older_parameters_is_outdated():
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("x")
    found = Passwords()
    assert found.is_outdated(weak)
    assert await found.matches(weak, "x")
    assert not found.is_outdated(await found.hash("x"))


async def test_nobodys_password_costs_what_somebodys_does(monkeypatch):
    found, calls = Passwords(), Counter()
    hashed = await found.hash("plum orbit kettle fjord")
    real = argon2.PasswordHasher.verify

    def counted(self, stored, password):
        calls[str(argon2.extract_parameters(stored))] += 1
        return real(self, stored, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    assert not await found.matches(hashed, "wrong")
    (ours,) = calls
    assert not await found.matches(None, "wrong")
    assert calls == {ours: 2}


async def test_hashing_is_bounded_and_says_so(monkeypatch):
    monkeypatch.setattr(passwords, "WAITING_MAX", 3)
    found, at_once, most = Passwords(), 0, 0

    def slow(_self, _password):
        return "hash"

    async def thread(function, *arguments):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return function(*arguments)

    monkeypatch.setattr(passwords.asyncio, "to_thread", thread)
    monkeypatch.setattr(argon2.PasswordHasher, "hash", slow)
    results = await asyncio.gather(*(found.hash("x") for _ in range(20)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, DependencyDown)]
    assert refused
    assert {error.code for error in refused} == {"busy"}
    assert most <= passwords.HASHING_MAX
    assert await found.hash("x") == "hash"
