"""What a server of QUIC knows again without having kept it."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from edgeproxy.engine.quic_tokens import RETRY_LIFETIME_S, QuicTokens

KEY = ec.generate_private_key(ec.SECP256R1())
FIRST, RETRIED = b"first-id", b"other-id"
CLIENT = ("192.0.2.1", 1234)


def test_a_token_comes_back_from_where_it_was_sent_and_in_time() -> None:
    token = QuicTokens(KEY).retry_token(CLIENT, FIRST, RETRIED, 100.0)
    other = QuicTokens(KEY)  # of another process
    assert other.first_id(token, CLIENT, RETRIED, 100.0) == FIRST
    assert other.first_id(token, CLIENT, RETRIED, 100.0 + RETRY_LIFETIME_S) == FIRST
    assert other.first_id(token, CLIENT, RETRIED, 101.0 + RETRY_LIFETIME_S) is None
    assert other.first_id(token, CLIENT, RETRIED, 90.0) is None
    assert other.first_id(token, ("192.0.2.1", 1235), RETRIED, 100.0) is None
    assert other.first_id(token, ("192.0.2.2", 1234), RETRIED, 100.0) is None
    assert other.first_id(token, CLIENT, FIRST, 100.0) is None
    for end in range(len(token)):
        assert other.first_id(token[:end], CLIENT, RETRIED, 100.0) is None
    for at in range(len(token)):
        forged = bytearray(token)
        forged[at] ^= 1
        assert other.first_id(bytes(forged), CLIENT, RETRIED, 100.0) is None


def test_tokens_of_ids_are_the_same_in_every_process_with_the_key() -> None:
    assert QuicTokens(KEY).reset_token(FIRST) == QuicTokens(KEY).reset_token(FIRST)
    assert len(QuicTokens(KEY).reset_token(FIRST)) == 16
    assert QuicTokens(KEY).reset_token(FIRST) != QuicTokens(KEY).reset_token(RETRIED)
    other = QuicTokens(ec.generate_private_key(ec.SECP256R1()))
    assert other.reset_token(FIRST) != QuicTokens(KEY).reset_token(FIRST)
    assert QuicTokens(None).reset_token(FIRST) != QuicTokens(None).reset_token(FIRST)
