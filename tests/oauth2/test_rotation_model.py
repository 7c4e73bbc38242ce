"""Owners and thieves play against the service (row R14): lost responses, copied tokens, any delay, in any order.

A phone's first pair is an authorization code, which can be lost, copied, replayed and raced like any other; it is
no bearer token, it dies by itself after a minute, and whoever presents it without its verifier ends the session.

The model knows who holds which pair, which pair was handed out for which, and which was used. It judges from that:

- a pair is given up when another one was handed out in its stead, its own answer having been lost;
- to refresh is theft with a pair that was given up, and with one that a used pair descends from, since whoever used
  that one had gone on; but within REFRESH_GRACE a retry is a retry;
- a bearer is theft with a pair that was given up, until the session goes on from the pair in its stead: then the
  token is as good as any older one, for the minutes that it lives.

What is to follow from this is asserted by itself: a session that one party alone has used never ends, and one that
two parties go on with, beyond the grace, has ended by the time that each of them had a turn.
"""

import json
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from typing import ClassVar

import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from app.core.crypto import base64url
from tests.support.oauth_clients import App
from tests.support.servers import Account, Muster, Tokens
from tests.support.sessions import BEYOND_GRACE, assert_signed_out, is_refused, make_older, more_devices, session_of

pytestmark = [pytest.mark.slow, pytest.mark.one_database]

MOMENT, MINUTES, DAYS = timedelta(seconds=5), timedelta(minutes=5), timedelta(days=5)
CODE_LIFE = timedelta(seconds=60)
IDLE_LIMIT, ABSOLUTE_LIMIT = timedelta(days=29), timedelta(days=179)  # a day below the defaults


@dataclass(eq=False)
class Pair:
    """A response of the token endpoint. The response to a retry is the same pair once more."""

    tokens: Tokens
    handed_out_for: "Pair | None" = None
    used: bool = False
    given_up: bool = False
    is_code: bool = False


@dataclass(eq=False)
class Device:
    """A session, as an observer of everything would know it."""

    pairs: list[Pair]
    holders: "list[Holder]" = field(default_factory=list)  # the owner first
    since_rotation: timedelta = timedelta(0)
    since_extension: timedelta = timedelta(0)
    since_login: timedelta = timedelta(0)
    ended: bool = False

    @property
    def code_is_dead(self) -> bool:
        return self.since_login >= CODE_LIFE

    @property
    def newest(self) -> Pair:
        return self.pairs[-1]

    def holder(self, number: int) -> "Holder":
        return self.holders[number % len(self.holders)]

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
    """What happens to a response."""

    STORED = auto()
    LOST = auto()
    CAUGHT = auto()  # by a thief, while the one who asked gets nothing


someone = st.integers(0, 2)
delays = st.sampled_from([timedelta(0), MOMENT, BEYOND_GRACE, MINUTES, DAYS])


class Sessions(RuleBasedStateMachine):
    """Thieves are after the phone, and after the next one when it was signed out; nobody touches the tablet."""

    muster: ClassVar[Muster]
    owner: ClassVar[Account]
    login: ClassVar[Tokens]  # never used: the tablet is a copy of its session
    app: ClassVar[App]

    def __init__(self) -> None:
        super().__init__()
        self.tablet, self.phone = self._sign_in(), self._sign_in_by_code()

    def _sign_in_by_code(self) -> Device:
        (code,) = self.app.codes(self.owner, 1)
        # No access token, but where the helpers read which session it is.
        claims = base64url(json.dumps({"sid": str(session_of(code))}).encode())
        pair = Pair(Tokens(access_token=f"e30.{claims}.none", refresh_token=code), is_code=True)
        device = Device([pair])
        device.holders.append(Holder(device, pair, acted=True))  # by Continue
        return device

    def _sign_in(self) -> Device:
        pair = Pair(more_devices(self.muster, self.login, 1)[0])
        device = Device([pair])
        device.holders.append(Holder(device, pair))
        return device

    # ---- What they do ----

    @rule(delay=delays, fate=st.sampled_from([Fate.STORED, Fate.LOST]))
    def the_tablet_refreshes(self, delay: timedelta, fate: Fate) -> None:
        self._refresh(self.tablet.holders[0], delay, fate)

    @rule()
    def the_tablet_is_used(self) -> None:
        self._use(self.tablet.holders[0])

    @precondition(lambda self: len(self.phone.holders) < 3)
    @rule(who=someone)
    def a_thief_copies_what_is_stored(self, who: int) -> None:
        self.phone.holders.append(Holder(self.phone, self.phone.holder(who).pair))

    @rule(who=someone, delay=delays, fate=st.sampled_from(Fate))
    def somebody_refreshes(self, who: int, delay: timedelta, fate: Fate) -> None:
        self._refresh(self.phone.holder(who), delay, fate)

    @rule(who=someone, delay=delays, thief_goes_on=st.booleans())
    def somebody_asks_again_for_an_answer_that_a_thief_caught(
        self, who: int, delay: timedelta, thief_goes_on: bool
    ) -> None:
        """This order of steps is a rule of its own, since random steps seldom come in it."""
        asking = self.phone.holder(who)
        self._refresh(asking, MINUTES, Fate.CAUGHT)
        thief = self.phone.holders[-1]
        if thief_goes_on:
            self._use(thief)
        self._refresh(asking, delay, Fate.STORED)
        self._use(thief)

    @precondition(lambda self: self.phone.pairs[0].is_code)
    @rule()
    def a_thief_has_the_code_without_its_verifier(self) -> None:
        phone, code = self.phone, self.phone.pairs[0]
        answer = self.app.exchange(code.tokens.refresh, code_verifier="A" * 43)
        if phone.code_is_dead and not phone.ended:
            assert is_refused(answer)
        else:
            phone.holders.append(Holder(phone, code, acted=True))
            self._has_ended(phone, answer)

    @rule(who=someone)
    def somebody_uses_it(self, who: int) -> None:
        self._use(self.phone.holder(who))

    @precondition(lambda self: not any(holder.pair.is_code for holder in self.phone.holders))
    @rule(first=someone, uses_at_once=st.booleans())
    def everybody_goes_on(self, first: int, uses_at_once: bool) -> None:
        """Everybody with a pair of the phone's session refreshes, each after the grace period of the one before."""
        phone = self.phone
        parties = [phone.holder(first + turn) for turn in range(len(phone.holders))]
        for party in parties:
            self._refresh(party, MINUTES, Fate.STORED)
            if uses_at_once:
                self._use(party)
        for party in parties:
            self._use(party)
        assert phone.ended == (len(parties) > 1)

    @precondition(lambda self: self.phone.ended or (self.phone.code_is_dead and self.phone.holders[0].pair.is_code))
    @rule(by_code=st.booleans())
    def the_owner_signs_in_again(self, by_code: bool) -> None:
        if self.phone.ended:
            assert_signed_out(self.muster, *[pair.tokens for pair in self.phone.pairs])
        self.phone = self._sign_in_by_code() if by_code else self._sign_in()

    # ---- What becomes of it ----

    def _use(self, holder: Holder) -> None:
        device, pair = holder.device, holder.pair
        if pair.is_code:
            return
        holder.acted = True
        answer = self.muster.me(pair.tokens)
        if device.ended or device.is_theft_as_bearer(pair):
            self._has_ended(device, answer)
        else:
            assert answer.status_code == 200, answer.text
            pair.used = True

    def _refresh(self, holder: Holder, delay: timedelta, fate: Fate) -> None:
        device, pair = holder.device, holder.pair
        self._wait(device, delay)
        answer = (self.app.exchange if pair.is_code else self.muster.refresh)(pair.tokens.refresh)
        if pair.is_code and device.code_is_dead and not device.ended:
            assert is_refused(answer), answer.text
            return
        holder.acted = True
        if device.ended or device.is_theft_to_refresh(pair):
            self._has_ended(device, answer)
            return
        assert answer.status_code == 200, answer.text
        answered = self._handed_out(device, pair, Tokens(answer.json()))
        if fate is Fate.STORED:
            holder.pair = answered
        elif fate is Fate.CAUGHT:
            device.holders.append(Holder(device, answered))

    def _wait(self, device: Device, delay: timedelta) -> None:
        if delay and device.since_rotation:
            delay = max(delay, MINUTES)  # clearly on one side of the grace
        if CODE_LIFE - 2 * MOMENT < device.since_login + delay < CODE_LIFE:
            delay = MINUTES  # and of the code's life
        if delay and device.since_extension + delay < IDLE_LIMIT and device.since_login + delay < ABSOLUTE_LIMIT:
            make_older(self.muster, device.newest.tokens, age=delay)
            device.since_rotation += delay
            device.since_extension += delay
            device.since_login += delay

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
        """Refused, like all else of the session. Only if two parties have used it: a sole user is never signed out."""
        assert is_refused(answer), answer.text
        assert sum(holder.acted for holder in device.holders) > 1
        if not device.ended:
            assert_signed_out(self.muster, *[pair.tokens for pair in device.pairs])
        device.ended = True


def test_a_sole_user_is_never_signed_out_and_two_parties_cannot_both_continue(muster: Muster) -> None:
    class Served(Sessions):
        pass

    Served.muster, Served.owner, Served.app = muster, muster.new_account(), App(muster)
    Served.login = Served.owner.tokens()
    run_state_machine_as_test(Served, settings=settings(max_examples=30, stateful_step_count=30, deadline=None))
