"""Owners and thieves play against the service (row R14): lost answers, copied tokens, any delay, in any order.

The model knows who holds which pair, which pair was handed out for which, and which was used. It judges from that:

- a pair is given up when another one was handed out in its stead, its own answer having been lost;
- to refresh is theft with a pair that was given up, and with one that a used pair descends from, since whoever used
  that one had gone on; but within REFRESH_GRACE a retry is a retry;
- a bearer is theft with a pair that was given up, until the session goes on from the pair in its stead: then the
  token is as good as any older one, for the minutes that it lives.

What is to follow from this is asserted by itself: a session that one party alone has used never ends, and one that
two parties go on with, beyond the grace, has ended by the time that each of them had a turn.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from typing import ClassVar

import httpx
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.servers import Muster, Tokens
from tests.session_tools import BEYOND_GRACE, assert_signed_out, is_refused, make_older, more_devices

MOMENT, MINUTES, DAYS = timedelta(seconds=5), timedelta(minutes=5), timedelta(days=5)
IDLE_LIMIT, ABSOLUTE_LIMIT = timedelta(days=29), timedelta(days=179)  # a day below the defaults


@dataclass(eq=False)
class Pair:
    """An answer of the token endpoint. A retry's answer is the same pair once more."""

    tokens: Tokens
    handed_out_for: "Pair | None" = None
    used: bool = False
    given_up: bool = False


@dataclass(eq=False)
class Device:
    """A session, as whoever watched everything would know it."""

    pairs: list[Pair]
    holders: "list[Holder]" = field(default_factory=list)
    since_rotation: timedelta = timedelta(0)
    since_extension: timedelta = timedelta(0)
    since_login: timedelta = timedelta(0)
    ended: bool = False

    @property
    def newest(self) -> Pair:
        return self.pairs[-1]

    def repeats(self, pair: Pair) -> bool:
        return pair is self.newest.handed_out_for and self.since_rotation < BEYOND_GRACE

    def somebody_went_on_from(self, pair: Pair) -> bool:
        return any(later.used and descends(later, pair) for later in self.pairs)

    def is_theft_to_refresh(self, pair: Pair) -> bool:
        return pair.given_up or (self.somebody_went_on_from(pair) and not self.repeats(pair))

    def is_theft_as_bearer(self, pair: Pair) -> bool:
        return pair.given_up and pair.handed_out_for is self.newest.handed_out_for


def descends(later: Pair, earlier: Pair) -> bool:
    parent = later.handed_out_for
    return parent is not None and (parent is earlier or descends(parent, earlier))


@dataclass(eq=False)
class Holder:
    """Somebody with a pair of this session: its owner, or a thief."""

    device: Device
    pair: Pair
    acted: bool = False


class Fate(Enum):
    """What becomes of an answer."""

    STORED = auto()
    LOST = auto()
    CAUGHT = auto()  # by a thief, while the one who asked gets nothing


class Sessions(RuleBasedStateMachine):
    """Two sessions of one account to begin with; each rule is one thing that an owner or a thief does."""

    holders = Bundle("holders")

    muster: ClassVar[Muster]
    login: ClassVar[Tokens]  # never used: each example plays with copies of its session

    @initialize(target=holders)
    def two_devices(self) -> MultipleResults[Holder]:
        pairs = [Pair(tokens) for tokens in more_devices(self.muster, self.login, 2)]
        return multiple(*[self._new_holder(Device([pair]), pair) for pair in pairs])

    def _new_holder(self, device: Device, pair: Pair) -> Holder:
        device.holders.append(Holder(device, pair))
        return device.holders[-1]

    @rule(target=holders, victim=holders)
    def copy_what_is_stored(self, victim: Holder) -> Holder:
        return self._new_holder(victim.device, victim.pair)

    @rule(holder=holders, delay=st.sampled_from([MOMENT, MINUTES, DAYS]))
    def time_passes(self, holder: Holder, delay: timedelta) -> None:
        device = holder.device
        if device.since_rotation:
            delay = max(delay, MINUTES)  # clearly on one side of the grace
        if device.since_extension + delay < IDLE_LIMIT and device.since_login + delay < ABSOLUTE_LIMIT:
            make_older(self.muster, device.newest.tokens, age=delay)
            device.since_rotation += delay
            device.since_extension += delay
            device.since_login += delay

    @rule(holder=holders)
    def use(self, holder: Holder) -> None:
        device, pair = holder.device, holder.pair
        holder.acted = True
        answer = self.muster.me(pair.tokens)
        if device.ended or device.is_theft_as_bearer(pair):
            self._has_ended(device, answer)
        else:
            assert answer.status_code == 200, answer.text
            pair.used = True

    @rule(target=holders, holder=holders, fate=st.sampled_from(Fate))
    def refresh(self, holder: Holder, fate: Fate) -> Holder | MultipleResults[Holder]:
        device, pair = holder.device, holder.pair
        holder.acted = True
        answer = self.muster.refresh(pair.tokens.refresh)
        if device.ended or device.is_theft_to_refresh(pair):
            self._has_ended(device, answer)
            return multiple()
        assert answer.status_code == 200, answer.text
        answered = self._handed_out(device, pair, Tokens(answer.json()))
        if fate is Fate.STORED:
            holder.pair = answered
        return self._new_holder(device, answered) if fate is Fate.CAUGHT else multiple()

    def _handed_out(self, device: Device, pair: Pair, tokens: Tokens) -> Pair:
        pair.used = True
        if device.repeats(pair):
            assert tokens.refresh == device.newest.tokens.refresh
            device.newest.tokens = tokens
            return device.newest
        assert tokens.refresh not in {known.tokens.refresh for known in device.pairs}
        if pair is device.newest:
            device.since_extension = timedelta(0)
        else:
            device.newest.given_up = True
        device.since_rotation = timedelta(0)
        device.pairs.append(Pair(tokens, handed_out_for=pair))
        return device.newest

    def _has_ended(self, device: Device, answer: httpx.Response) -> None:
        """Refused, like all else of the session. Only if two parties have used it: nobody is signed out by himself."""
        assert is_refused(answer), answer.text
        assert sum(holder.acted for holder in device.holders) > 1
        if not device.ended:
            assert_signed_out(self.muster, *[pair.tokens for pair in device.pairs])
        device.ended = True

    @rule(holder=holders)
    def all_who_hold_it_go_on(self, holder: Holder) -> None:
        """Whoever holds it refreshes, stores, uses; each beyond the grace of the one before."""
        device = holder.device
        if not device.ended:
            for party in device.holders:
                self.time_passes(party, MINUTES)
                self.refresh(party, Fate.STORED)
                self.use(party)
        assert device.ended == (len(device.holders) > 1)


def test_nobody_is_signed_out_by_himself_and_two_parties_do_not_both_go_on(muster: Muster) -> None:
    class Served(Sessions):
        pass

    Served.muster, Served.login = muster, muster.register().sign_in()
    run_state_machine_as_test(Served, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))
