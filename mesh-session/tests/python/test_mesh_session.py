"""Both sides of mesh_session.py against each other. Run with `python -m unittest`, from this folder."""

from __future__ import annotations

import random
import struct
import unittest
from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa

import mesh_session as m
from mesh_session import END, HEAD, SUITES, Initiator, Local, Refused, Responder, Session

ALICE, BOB = "spiffe://example.org/alice", "spiffe://example.org/bob"


@cache
def rsa_key(bits: int, which: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, bits)


class Trusting:
    """Says yes, but to tokens that begin with `bad`."""

    def key(self, name: str, spki: bytes, attestation: bytes) -> None:
        if attestation.startswith(b"bad"):
            raise Refused("not this key")

    def token(self, name: str, token: bytes) -> None:
        if token.startswith(b"bad"):
            raise Refused("not this token")


class Pair(unittest.TestCase):
    """Two sides on one clock, with one source of randomness."""

    def setUp(self) -> None:
        self.now = 1_800_000_000_000
        self.dice = random.Random(self.id())

    def local(self, name: str, bits: int = 2_048, suites: list[m.Suite] | None = None, **more: bytes) -> Local:
        return Local(name, rsa_key(bits, name == BOB), Trusting(), clock=lambda: self.now, random=self.dice.randbytes,
                     suites=suites or list(SUITES.values()), **more)  # type: ignore[arg-type]  # fmt: skip

    def sides(self, limits: m.Limits = m.Limits(), cookies: bool = False, **more: object) -> None:
        mint = m.CookieMint(lambda: self.now, self.dice.randbytes) if cookies else None
        self.responder = Responder(self.local(BOB, token=b"b", **more), limits, mint)  # type: ignore[arg-type]
        self.initiator = Initiator(self.local(ALICE, token=b"a", **more), BOB, limits)  # type: ignore[arg-type]

    def agree(self) -> tuple[Session, Session]:
        waiting = self.initiator.start(self.responder.offer)
        session = waiting.input(self.responder.answer(waiting.message))
        assert isinstance(session, Session)
        return session, self.responder.sessions[session.id]

    def assertRefused(self, do: object, *args: object, told: str = "refused") -> None:
        with self.assertRaises(Refused) as caught:
            do(*args)  # type: ignore[operator]
        self.assertEqual(caught.exception.told, told, str(caught.exception))

    def mutations(self, message: bytes, n: int) -> list[bytes]:
        """Each first 64 bytes with a bit turned, others at random, cut short and made longer."""
        at = [*range(min(64, len(message))), *(self.dice.randrange(len(message)) for _ in range(n))]
        turned = [message[:i] + bytes([message[i] ^ 1 << self.dice.randrange(8)]) + message[i + 1 :] for i in at]
        return [*turned, message[:-1], message + b"\0", message[: len(message) // 2]]


class Handshakes(Pair):
    def test_all_suites_and_key_sizes_agree(self) -> None:
        for i, suite in enumerate(SUITES.values()):
            self.sides(suites=[suite], bits=(2_048, 3_072, 4_096)[i % 3])
            a, b = self.agree()
            self.assertEqual((a.id, a.resumption, a.suite, a.v.chain_0), (b.id, b.resumption, suite, b.v.chain_0))
            self.assertEqual((a.peer.name, b.peer.name, a.v.token_r, b.v.token_i), (BOB, ALICE, b"b", b"a"))
            sent = a.begin(b"route")
            got, flags, text = b.accept(b"route", sent.seal(b"question", HEAD | END))
            self.assertEqual((flags, text), (HEAD | END, b"question"))
            self.assertEqual(sent.open(got.seal(b"answer", END)), (END, b"answer"))
            self.assertFalse(a.under_way or b.under_way)

    def test_the_initiators_own_order_of_suites_counts(self) -> None:
        self.sides(suites=[SUITES[b"\1\1"], SUITES[b"\0\1"], SUITES[b"\0\3"]])
        self.initiator.local.suites = [SUITES[b"\0\2"], SUITES[b"\0\3"], SUITES[b"\1\1"]]
        self.assertEqual(self.agree()[0].suite.code, b"\0\3")
        self.initiator.local.suites = [SUITES[b"\0\2"]]
        self.assertRefused(self.initiator.start, self.responder.offer)

    def test_what_is_changed_on_the_way_is_refused(self) -> None:
        for code in (b"\1\1", b"\0\1"):
            self.sides(suites=[SUITES[code]])
            for offer in self.mutations(self.responder.offer, 64):
                self.assertRefused(self.initiator.start, offer)
            waiting = self.initiator.start(self.responder.offer)
            for first in self.mutations(waiting.message, 256):
                with self.assertRaises(Refused):
                    self.responder.answer(first)
            self.assertEqual(self.responder.sessions, {})
            reply = self.responder.answer(waiting.message)
            for changed in self.mutations(reply, 256):
                waiting.is_over = False
                self.assertRefused(waiting.input, changed)
            self.assertRefused(waiting.input, reply)

    def test_a_repeated_first_message_is_refused(self) -> None:
        self.sides()
        waiting = self.initiator.start(self.responder.offer)
        self.responder.answer(waiting.message)
        for later in (0, 30_000, 60_000, 60_001, 1_000_000):
            self.now = 1_800_000_000_000 + later
            self.assertRefused(self.responder.answer, waiting.message)
        # From a clock that is ahead by all that is tolerated, the same until its very last millisecond.
        self.initiator.local.clock = lambda: self.now + 60_000
        waiting = self.initiator.start(self.responder.offer)
        self.responder.answer(waiting.message)
        self.now += 120_000
        self.assertRefused(self.responder.answer, waiting.message)

    def test_clocks_may_differ_by_the_tolerance(self) -> None:
        self.sides()
        for skew, is_good in ((60_000, True), (-60_000, True), (60_001, False), (-60_001, False)):
            self.initiator.local.clock = lambda: self.now + skew
            waiting = self.initiator.start(self.responder.offer)
            if is_good:
                self.responder.answer(waiting.message)
            else:
                self.assertRefused(self.responder.answer, waiting.message)

    def test_a_full_cache_refuses_and_forgets_nothing(self) -> None:
        self.sides()
        self.responder.replays.capacity = 2
        first = self.initiator.start(self.responder.offer).message
        self.responder.answer(first)
        self.agree()
        self.assertRefused(self.responder.answer, self.initiator.start(self.responder.offer).message, told="busy")
        self.assertRefused(self.responder.answer, first)
        self.now += 120_001
        self.agree()

    def test_offers_overlap_and_then_are_stale(self) -> None:
        self.sides()
        early, late = self.initiator.start(self.responder.offer), self.initiator.start(self.responder.offer)
        self.responder.change_identity(self.local(BOB, 3_072))
        self.assertIsInstance(early.input(self.responder.answer(early.message)), Session)
        self.agree()
        self.now += 60_000
        self.assertRefused(self.responder.answer, late.message, told="stale offer")

    def test_names_keys_and_tokens_are_the_verifiers_affair(self) -> None:
        self.sides()
        self.initiator.expected_name = "spiffe://example.org/carol"
        self.assertRefused(self.initiator.start, self.responder.offer)
        for change in ({"attestation": b"bad"}, {"token": b"bad"}, {"smallest_key": 3_072}):
            self.sides()
            vars(self.initiator.local).update(change)
            if "smallest_key" in change:
                self.assertRefused(self.initiator.start, self.responder.offer)
                self.initiator.local.smallest_key, self.responder.local.smallest_key = 2_048, 3_072
            message = self.initiator.start(self.responder.offer).message
            self.assertRefused(self.responder.answer, message)

    def test_weak_shares_are_refused(self) -> None:
        self.sides(suites=[SUITES[b"\0\1"]])
        offer = m.make_offer(self.responder.local, bytes(32), b"")
        self.assertRefused(self.initiator.start, offer)

    def test_waiting_ends_after_ten_seconds(self) -> None:
        self.sides()
        waiting = self.initiator.start(self.responder.offer)
        reply = self.responder.answer(waiting.message)
        self.now += 10_000
        self.assertRefused(waiting.input, reply)

    def test_a_cookie_is_asked_for_once(self) -> None:
        self.sides(cookies=True)
        waiting = self.initiator.start(self.responder.offer)
        challenge = self.responder.answer(waiting.message, b"10.0.0.1:1")
        with_cookie = waiting.input(challenge)
        assert isinstance(with_cookie, bytes)
        # Somebody else's, a changed one and an old one lead to another challenge.
        for message, address, later in ((with_cookie, b"10.0.0.2:1", 0), (with_cookie, b"10.0.0.1:1", 30_001),
                                        (with_cookie[:9] + b"x" + with_cookie[10:], b"10.0.0.1:1", 0)):  # fmt: skip
            self.now += later
            self.assertEqual(self.responder.answer(message, address)[1], m.CHALLENGE)
            self.now -= later
        self.assertEqual(self.responder.replays.entries, {})
        self.now += 9_000
        self.assertIsInstance(waiting.input(self.responder.answer(with_cookie, b"10.0.0.1:1")), Session)
        waiting = self.initiator.start(self.responder.offer)
        waiting.input(challenge)
        self.assertRefused(waiting.input, challenge)


class Resumptions(Pair):
    def test_resumed_sessions_have_fresh_keys_and_the_old_peer(self) -> None:
        for suite in SUITES.values():
            self.sides(suites=[suite])
            a, b = self.agree()
            self.now += 1_000
            for _ in range(3):
                old, waiting = a, self.initiator.resume(a, b"again")
                session = waiting.input(self.responder.answer(waiting.message))
                assert isinstance(session, Session)
                a, b = session, self.responder.sessions[session.id]
                self.assertEqual((a.suite, b.peer.name, b.authenticated), (suite, ALICE, self.now - 1_000))
                self.assertTrue({a.id, a.resumption, a.v.chain_0}.isdisjoint({old.id, old.resumption, old.v.chain_0}))
                b.accept(b"r", a.begin(b"r").seal(b"x", END))
                self.responder.sessions[old.id].accept(b"r", old.begin(b"r").seal(b"x", END))

    def test_what_is_changed_repeated_or_too_late_is_refused(self) -> None:
        self.sides(m.Limits(life=10_000_000, idle=10_000_000))
        a, _ = self.agree()
        waiting = self.initiator.resume(a, b"")
        for changed in self.mutations(waiting.message, 128):
            with self.assertRaises(Refused):
                self.responder.answer(changed)
        reply = self.responder.answer(waiting.message)
        self.assertRefused(self.responder.answer, waiting.message)
        for changed in self.mutations(reply, 64):
            waiting.is_over = False
            self.assertRefused(waiting.input, changed)
        self.assertRefused(self.responder.answer, self.initiator.resume(a, b"bad").message)
        self.now += 3_600_000
        self.responder.answer(self.initiator.resume(a, b"").message)
        self.now += 1
        self.assertRefused(self.responder.answer, self.initiator.resume(a, b"").message)

    def test_only_known_sessions_are_resumed(self) -> None:
        self.sides()
        a, b = self.agree()
        b.accept(m.CLOSE_ROUTE, self.close(a))
        a.closed = False
        self.assertRefused(self.responder.answer, self.initiator.resume(a, b"").message, told="no session")

    def close(self, session: Session) -> bytes:
        record = session.close_record()
        self.assertRefused(session.begin, b"r")
        return record


class Records(Pair):
    def setUp(self) -> None:
        super().setUp()
        self.sides(suites=[SUITES[b"\0\1"]])
        self.a, self.b = self.agree()

    def test_every_change_of_a_record_is_refused(self) -> None:
        for code in (b"\0\1", b"\0\x11"):
            self.sides(suites=[SUITES[code]])
            a, b = self.agree()
            record = a.begin(b"r").seal(b"some text of more than a block", HEAD)
            for changed in self.mutations(record, 100):
                if changed[:32] == record[:32] and code == b"\0\x11" and changed[32:-48] != record[32:-48]:
                    continue  # takes the number with it: the MAC is good, the text is not
                self.assertRefused(b.accept, b"r", changed)
            self.assertRefused(b.accept, b"other", record)
            b.accept(b"r", record)
            self.assertRefused(b.accept, b"r", record)

    def test_records_come_in_order_and_end(self) -> None:
        sent = self.a.begin(b"r")
        one, two, three = sent.seal(b"1"), sent.seal(b"2"), sent.seal(b"3", END)
        self.assertRefused(sent.seal, b"4")
        self.assertRefused(self.b.accept, b"r", two)
        got, _, _ = self.b.accept(b"r", one)
        self.assertEqual([got.open(two), got.open(three)], [(0, b"2"), (END, b"3")])
        self.assertRefused(got.open, three)
        # Nothing that one side sealed passes for the other's.
        answer = got.seal(b"x")
        self.assertRefused(self.a.begin(b"r").open, answer)
        # After a failure nothing more of that stream opens, and the other direction goes on.
        self.assertEqual(sent.open(answer), (0, b"x"))
        self.assertRefused(sent.open, answer)
        self.assertRefused(sent.open, got.seal(b"y"))

    def test_the_window_takes_each_number_once(self) -> None:
        records = [self.a.begin(b"r").seal(b"", END) for _ in range(5_000)]
        self.b.accept(b"r", records[4_200])
        for number in (104, 0):
            self.assertRefused(self.b.accept, b"r", records[number])
        late = list(range(105, 4_200))
        self.dice.shuffle(late)
        for number in late[:500]:
            self.b.accept(b"r", records[number])
            self.assertRefused(self.b.accept, b"r", records[number])
        self.b.accept(b"r", records[105]) if 105 not in late[:500] else None

    def test_a_window_agrees_with_a_simple_model(self) -> None:
        for _ in range(50):
            window, seen = m.Window(16), list[int]()
            for _ in range(200):
                number = max(0, max(seen, default=0) + self.dice.randrange(-20, 4))
                is_good = number not in seen and number > max(seen, default=-1) - 16
                if is_good:
                    window.claim(number)
                    seen.append(number)
                else:
                    self.assertRefused(window.claim, number)

    def test_sessions_end_by_time_and_by_word(self) -> None:
        for later in (900_000, 3_600_000):
            a, b = self.agree()
            record = a.begin(b"r").seal(b"", END)
            self.now += later
            self.assertRefused(b.accept, b"r", record, told="no session")
        a, b = self.agree()
        closing = a.close_record()
        self.assertRefused(b.accept, b"r", closing)
        b.accept(m.CLOSE_ROUTE, closing)
        self.assertTrue(b.is_over())


class Epochs(Pair):
    def setUp(self) -> None:
        super().setUp()
        self.sides(suites=[SUITES[b"\0\3"]])
        self.a, self.b = self.agree()

    def test_either_side_goes_on_and_the_other_follows(self) -> None:
        for here, there in ((self.a, self.b), (self.b, self.a)):
            sent = self.a.begin(b"r")
            got, _, _ = self.b.accept(b"r", sent.seal(b"0"))
            before = here.newest.number
            here.advance()
            source, sink = (sent, got) if here is self.a else (got, sent)
            self.assertEqual(sink.open(source.seal(b"1")), (0, b"1"))
            self.assertEqual(here.newest.number, there.newest.number)
            self.assertEqual(here.newest.number, before + 1)
            self.assertEqual(source.open(sink.seal(b"2")), (0, b"2"))

    def test_both_at_once_are_in_the_same_epoch(self) -> None:
        sent = self.a.begin(b"r")
        got, _, _ = self.b.accept(b"r", sent.seal(b"0"))
        self.a.advance(), self.b.advance()
        got.open(sent.seal(b"1"))
        sent.open(got.seal(b"2"))
        self.assertEqual((self.a.newest.number, self.b.newest.number), (1, 1))

    def test_epochs_may_be_overtaken_by_four_and_never_go_back_within_a_stream(self) -> None:
        sent, other = self.a.begin(b"r"), self.a.begin(b"r")
        zero, late = sent.seal(b"0"), other.seal(b"late")
        got, _, _ = self.b.accept(b"r", zero)
        ahead = []
        for _ in range(4):
            self.a.advance()
            ahead.append(self.a.begin(b"r").seal(b"x"))
        self.assertRefused(self.a.advance)
        one = sent.seal(b"1")
        self.b.accept(b"r", ahead[3])
        self.assertEqual(self.b.newest.number, 4)
        for record in (ahead[1], ahead[0], late, ahead[2]):
            self.b.accept(b"r", record)
        self.assertEqual(got.open(one), (0, b"1"))
        # A record sealed by hand with older keys, behind a newer one of its stream.
        back = self.b.epochs[1].keys[1].seal(m.make_header(1, 0, 1, self.a.id, 0, 2), m.H(b"r"), b"back")
        self.assertRefused(got.open, back)
        # Five ahead is too far: keys that only a sender which breaks the rule has.
        far = m.Epoch(8, self.a.suite, self.chain(8), self.now).keys[1]
        far_record = far.seal(m.make_header(8, 0, 1, self.a.id, 50, 0), m.H(b"r"), b"")
        self.b.accept(b"r", far_record)
        further = m.Epoch(13, self.a.suite, self.chain(13), self.now).keys[1]
        self.assertRefused(self.b.accept, b"r", further.seal(m.make_header(13, 0, 1, self.a.id, 51, 0), m.H(b"r"), b""))

    def chain(self, n: int) -> bytes:
        chain: bytes = self.a.v.chain_0
        for _ in range(n):
            chain = m.next_chain(chain)
        return chain

    def test_a_forged_record_of_the_next_epoch_moves_nobody(self) -> None:
        record = self.a.begin(b"r").seal(b"0")
        forged = record[:1] + b"\1" + record[2:]
        self.assertRefused(self.b.accept, b"r", forged)
        self.assertEqual(self.b.newest.number, 0)
        self.b.accept(b"r", record)

    def test_an_old_epoch_begins_exchanges_until_the_overlap_is_over(self) -> None:
        early, late = self.a.begin(b"r").seal(b""), self.a.begin(b"r").seal(b"")
        self.a.advance()
        self.b.accept(b"r", self.a.begin(b"r").seal(b"", END))[0].seal(b"", END)
        self.now += 30_000
        self.b.accept(b"r", early)
        self.now += 1
        self.assertRefused(self.b.accept, b"r", late)

    def test_keys_stay_while_a_stream_needs_them_and_then_go(self) -> None:
        sent = self.a.begin(b"r")
        got, _, _ = self.b.accept(b"r", sent.seal(b"0"))
        slow = sent.seal(b"slow")
        answers = [got.seal(b"0")]
        for _ in range(3):
            self.a.advance()
            other = self.a.begin(b"r")
            there, _, _ = self.b.accept(b"r", other.seal(b"", END))
            other.open(there.seal(b"", END))
            self.now += 31_000
        self.assertEqual(got.open(slow), (0, b"slow"))
        for answer in answers:
            sent.open(answer)
        self.assertEqual(sorted(self.b.epochs), [0, 1, 2, 3])
        got.open(sent.seal(b"", END))
        sent.open(got.seal(b"", END))
        self.assertEqual((sorted(self.a.epochs), sorted(self.b.epochs)), ([3], [3]))

    def test_a_share_done_asks_for_the_next_epoch_until_the_last(self) -> None:
        self.sides(m.Limits(records=2), suites=[SUITES[b"\0\3"]])
        a, b = self.agree()
        count = 0
        with self.assertRaises(Refused):
            for count in range(2_000):
                sent = a.begin(b"r")
                got, _, _ = b.accept(b"r", sent.seal(b"", END))
                sent.open(got.seal(b"", END))
        self.assertEqual((a.newest.number, b.newest.number), (255, 255))
        self.assertGreaterEqual(count, 256)

    def test_random_traffic_with_epochs_in_any_order_arrives_whole(self) -> None:
        """Streams in order, exchanges in any; a side goes on as far as it may."""
        for _ in range(20):
            self.sides(suites=[self.dice.choice(list(SUITES.values()))])
            a, b = self.agree()
            lines: dict[tuple[int, int], list[bytes]] = {}
            sent: dict[int, m.Exchange] = {}
            got: dict[int, m.Exchange] = {}
            texts: dict[tuple[int, int], list[bytes]] = {}
            for _ in range(400):
                roll = self.dice.random()
                if roll < 0.1:
                    exchange = a.begin(b"r")
                    sent[exchange.number] = exchange
                elif roll < 0.45 and sent:
                    side, direction = self.dice.choice([(sent, 1), (got, 2)])
                    if side:
                        number = self.dice.choice(list(side))
                        text = self.dice.randbytes(self.dice.randrange(100))
                        lines.setdefault((number, direction), []).append(side[number].seal(text))
                        texts.setdefault((number, direction), []).append(text)
                elif roll < 0.9 and lines:
                    number, direction = key = self.dice.choice(list(lines))
                    record = lines[key].pop(0)
                    if not lines[key]:
                        del lines[key]
                    if direction == 1 and number not in got:
                        got[number], _, text = b.accept(b"r", record)
                    else:
                        _, text = (got if direction == 1 else sent)[number].open(record)
                    self.assertEqual(text, texts[key].pop(0))
                else:
                    side_ = self.dice.choice([a, b])
                    if side_.may_advance():
                        side_.advance()
            self.assertLessEqual(abs(a.newest.number - b.newest.number), m.AHEAD)


class Cookies(Pair):
    def test_a_cookie_is_good_for_thirty_seconds_its_address_and_its_message(self) -> None:
        mint = m.CookieMint(lambda: self.now, self.dice.randbytes)
        cookie = mint.mint(b"here", b"message")
        self.assertEqual(len(cookie), 40)
        self.assertEqual(struct.unpack(">Q", cookie[:8]), (self.now,))
        self.assertFalse(mint.is_good(cookie, b"there", b"message") or mint.is_good(cookie, b"here", b"massage"))
        self.now += 30_000
        self.assertTrue(mint.is_good(cookie, b"here", b"message"))
        self.now += 1
        self.assertFalse(mint.is_good(cookie, b"here", b"message"))


class Derivation(unittest.TestCase):
    def test_hkdf_gives_what_rfc_5869_says(self) -> None:
        """Appendix A.1."""
        prk = m.HKDF_Extract(bytes(range(13)), b"\x0b" * 22)
        self.assertEqual(prk.hex(), "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
        okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        self.assertEqual(m.HKDF_Expand(prk, bytes(range(0xF0, 0xFA)), 42).hex(), okm)

    def test_a_box_opens_with_its_transcript_only(self) -> None:
        box, t = bytes(range(76)), m.H(b"t")
        sealed = m.seal_box(box, t, b"inner")
        self.assertEqual(m.open_box(box, t, sealed), b"inner")
        for other in (sealed[:-1], sealed[:40], b"", sealed + b"\0", b"\1" + sealed[1:]):
            with self.assertRaises(Refused):
                m.open_box(box, t, other)
        with self.assertRaises(Refused):
            m.open_box(box, m.H(b"u"), sealed)


if __name__ == "__main__":
    unittest.main()
