"""A connection of QUIC (RFC 9000) by aioquic, bounded where the library is not.

Windows open as data is taken and streams as they end, a certificate is chosen by name, and what
waits to be sent is known. All that relies on private names of aioquic is here and in
`quic_frames.py`, and `check_library` looks whether they are there: `pyproject.toml` fixes the
version that this was written and tested with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import aioquic
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    Limit,
    QuicConnection,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicProtocolVersion
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from edgeproxy.addresses import BadAddress
from edgeproxy.engine.allowance import Allowance
from edgeproxy.engine.quic_frames import PaidQuic
from edgeproxy.policy.certificates import Certificate

VERSIONS = [QuicProtocolVersion.VERSION_1]
ID_BYTES = 8  # of the connection ids that we give out

MAX_STREAMS = 100  # requests at once on a connection
MAX_OTHER_STREAMS = 16  # of one direction, ever: three are needed, and some clients try more
STREAM_WINDOW = 64 * 1024  # bytes of a body that the client may send ahead
CONNECTION_WINDOW = 256 * 1024  # of all bodies on a connection

HELD_BYTES = 64 * 1024
MAX_HELD_BYTES = 1024 * 1024
"""Of answers that are sent and not acknowledged, or wait for that: the first, and twice what the
congestion window has grown to, but never more than the second."""

_NO_MIGRATION = b"\x0c\x00"  # the parameter disable_active_migration (section 18.2)

logging.getLogger("quic").setLevel(logging.CRITICAL)  # what clients do wrong is told by us


class WrongLibrary(BadAddress):
    """The installed aioquic is not the one that this file knows."""


def check_library() -> None:
    """Raises WrongLibrary, and says what to do."""
    connection = QuicConnection(configuration=QuicConfiguration(is_client=True))
    stream = QuicStream(stream_id=0)
    missing = [
        name
        for owner, names in (
            (connection, _NAMES_OF_CONNECTIONS),
            (stream.sender, _NAMES_OF_SENDERS),
            (stream.receiver, _NAMES_OF_RECEIVERS),
            (tls.Context, "_server_handle_hello"),
        )
        for name in names.split()
        if not hasattr(owner, name)
    ]
    if missing:
        raise WrongLibrary(
            f"HTTP/3 does not work with aioquic {aioquic.__version__}, which lacks {missing[0]}; "
            "install the version that requirements.txt names, or take h3 out of tls.protocols"
        )


_NAMES_OF_CONNECTIONS = """
    _QuicConnection__frame_handlers _close_at _close_event _close_pending _crypto_streams
    _handle_ack_frame _handle_crypto_frame _handle_stop_sending_frame _handle_stream_frame
    _host_cids _initialize _local_max_data _local_max_streams_bidi _local_max_streams_uni _loss
    _max_datagram_size _network_paths _on_connection_limit_delivery
    _on_max_stream_data_delivery _packet_number _ping_pending
    _peer_cid_sequence_numbers _remote_max_data _remote_max_data_used _replenish_connection_ids
    _serialize_transport_parameters _spaces _streams _streams_finished _write_connection_limits
    _write_stream_limits
"""
_NAMES_OF_SENDERS = "_buffer _buffer_fin _buffer_stop _reset_error_code highest_offset is_finished"
_NAMES_OF_RECEIVERS = "_final_size _ranges highest_offset is_finished"


class _Ended:
    """The streams that have ended: a set that takes no more memory the more there are."""

    def __init__(self) -> None:
        self.requests = 0
        self._numbers = [RangeSet() for _ in range(4)]  # of each kind (section 2.1)

    def add(self, stream_id: int) -> None:
        self._numbers[stream_id & 3].add(stream_id >> 2)
        self.requests += stream_id & 3 == 0

    def __contains__(self, stream_id: int) -> bool:
        return stream_id >> 2 in self._numbers[stream_id & 3]


class BoundedQuic(PaidQuic):
    """The server's side of one connection.

    `choose` names the certificate for a server name; `reset_token` makes the token by which a
    client knows that the connection with an id is gone. With `retried_id`, the client has proven
    its address already. What it does is paid for from `allowance`.
    """

    def __init__(
        self,
        *,
        choose: Callable[[str | None], Certificate],
        reset_token: Callable[[bytes], bytes],
        allowance: Allowance,
        idle_s: float,
        first_id: bytes,
        retried_id: bytes | None,
    ) -> None:
        default = choose(None)
        super().__init__(
            allowance,
            configuration=QuicConfiguration(
                is_client=False,
                alpn_protocols=["h3"],
                certificate=default.chain[0],
                private_key=default.key,
                connection_id_length=ID_BYTES,
                idle_timeout=idle_s,
                max_data=CONNECTION_WINDOW,
                max_stream_data=STREAM_WINDOW,
                supported_versions=cast(list[int], VERSIONS),
            ),
            original_destination_connection_id=first_id,
            retry_source_connection_id=retried_id,
        )
        self._choose = choose
        self._reset_token = reset_token
        self._is_proven = retried_id is not None
        self._ended = self._streams_finished = _Ended()  # type: ignore[assignment]
        for limit, value in (
            (self._local_max_streams_bidi, MAX_STREAMS),
            (self._local_max_streams_uni, MAX_OTHER_STREAMS),
        ):
            limit.value = limit.sent = value
        self._sign_ids()

    def let_go(self) -> None:
        """It is used no more. Without this it would wait for the garbage collector."""
        self._handlers.clear()
        self._streams.clear()
        self._streams_queue.clear()

    # ------------------------------------------------------ who the client is, and who we are

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        super().receive_datagram(data, addr, now)
        if self._is_proven and self._network_paths:
            self._network_paths[0].is_validated = True
            self._is_proven = False

    @property
    def is_proven(self) -> bool:
        """Whether the client has shown that it is where it says (section 8.1)."""
        return bool(self._network_paths) and self._network_paths[0].is_validated

    @property
    def may_tell(self) -> bool:
        """Whether one more datagram may be sent to an address that is not proven."""
        return self._network_paths[0].can_send(self._max_datagram_size)

    @property
    def address(self) -> Any:
        """Where what is sent goes to."""
        return self._network_paths[0].addr

    @property
    def ids(self) -> list[bytes]:
        """By which the client may name this connection."""
        return [one.cid for one in self._host_cids]

    def _sign_ids(self) -> None:
        """Tokens that can be made again once all of this is forgotten (section 10.3.2)."""
        for one in self._host_cids:
            one.stateless_reset_token = self._reset_token(one.cid)

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        self._sign_ids()

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        context = self.tls
        handle = context._server_handle_hello

        def choose_certificate(hello: Buffer, *answers: Buffer) -> None:
            text = Buffer(data=hello.data_slice(0, hello.capacity))
            chosen = self._choose(tls.pull_client_hello(text).server_name)
            context.certificate, *context.certificate_chain = chosen.chain
            context.certificate_private_key = cast(Any, chosen.key)
            handle(hello, *answers)

        context._server_handle_hello = choose_certificate  # type: ignore[method-assign, assignment]

    def _serialize_transport_parameters(self) -> bytes:
        return super()._serialize_transport_parameters() + _NO_MIGRATION

    def violated(self) -> None:
        """Close because of something that the library did not expect, unless it knows better."""
        self.close(error_code=QuicErrorCode.PROTOCOL_VIOLATION, frame_type=QuicFrameType.PADDING)

    @property
    def fault(self) -> str | None:
        """What the library has found wrong, and is about to tell the client."""
        found = self._close_event if self._close_pending else None
        return None if found is None else found.reason_phrase

    # ------------------------------------------------------ windows

    def took(self, stream_id: int, size: int) -> None:
        """So many bytes of a stream are in good hands: the client may send more."""
        self._local_max_data.value += size
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.max_stream_data_local += size

    def settle(self, stream_id: int) -> None:
        """The client has ended a stream: what nobody has taken of it does not count any more."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.receiver._final_size is not None:
            taken = stream.max_stream_data_local - STREAM_WINDOW
            self.took(stream_id, stream.receiver._final_size - taken)

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        streams = self._local_max_streams_bidi
        streams.value = MAX_STREAMS + self._ended.requests
        for limit, step in ((self._local_max_data, CONNECTION_WINDOW // 2), (streams, 16)):
            if not limit.sent or limit.value - limit.sent >= step:
                self._write_limit(builder, limit)

    def _write_limit(self, builder: QuicPacketBuilder, limit: Limit) -> None:
        frame = builder.start_frame(
            limit.frame_type,
            capacity=CONNECTION_LIMIT_FRAME_CAPACITY,
            handler=self._on_connection_limit_delivery,
            handler_args=(limit,),
        )
        frame.push_uint_var(limit.value)
        limit.sent = limit.value

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        limit, told = stream.max_stream_data_local, stream.max_stream_data_local_sent
        if stream.receiver.is_finished or (told and limit - told < STREAM_WINDOW // 2):
            return
        if limit == told or stream.receiver._final_size is not None:
            return
        frame = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        frame.push_uint_var(cast(int, stream.stream_id))
        frame.push_uint_var(limit)
        stream.max_stream_data_local_sent = limit

    @property
    def owes_streams(self) -> bool:
        """Whether the client may begin more requests, and should be told so."""
        return MAX_STREAMS + self._ended.requests - self._local_max_streams_bidi.sent >= 16

    # ------------------------------------------------------ what is to be sent

    @property
    def held(self) -> int:
        """Bytes of answers that the client has not confirmed."""
        return sum([len(one.sender._buffer) for one in self._streams.values()])

    @property
    def is_settled(self) -> bool:
        """Whether the client has confirmed all that was sent, and each end of an answer."""
        return not any(
            one.sender._buffer
            or (one.sender._buffer_fin is not None and not one.sender.is_finished)
            for one in self._streams.values()
            if one.sender._reset_error_code is None
        )

    def room(self, stream_id: int) -> int:
        """How many bytes of a stream may be handed over now: as many as the client has opened its
        windows for, and as are not too many to hold."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None:
            return 0
        senders = [
            one.sender for one in self._streams.values() if one.sender._reset_error_code is None
        ]
        unsent = sum([one._buffer_stop - one.highest_offset for one in senders])
        budget = min(max(2 * self._loss.congestion_window, HELD_BYTES), MAX_HELD_BYTES)
        return min(
            stream.max_stream_data_remote - stream.sender._buffer_stop,
            self._remote_max_data - self._remote_max_data_used - unsent,
            budget - sum([len(one._buffer) for one in senders]),
        )

    def write(self, stream_id: int, data: bytes, *, ended: bool = False) -> None:
        """Send `data`, unless the stream is none any more."""
        stream = self._streams.get(stream_id)
        if stream is not None and not _is_over(stream):
            self.send_stream_data(stream_id, data, ended)

    def open(self, kind: bytes) -> int:
        """A stream of ours in one direction, which begins with its `kind`."""
        stream_id = self.get_next_available_stream_id(is_unidirectional=True)
        self.send_stream_data(stream_id, kind)
        return stream_id

    def drop(self, stream_id: int, code: int) -> None:
        """Send nothing more on a stream."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if stream.sender._reset_error_code is None and not stream.sender.is_finished:
            self.reset_stream(stream_id, code)
        stream.sender._buffer.clear()

    def is_dropped(self, stream_id: int) -> bool:
        """Whether nothing more will be sent on a stream that is there."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.sender._reset_error_code is not None

    def has_come(self, stream_id: int) -> bool:
        """Whether nothing more will come on a stream."""
        stream = self._streams.get(stream_id)
        return stream is None or stream.receiver.is_finished

    def want_no_more(self, stream_id: int, code: int) -> None:
        """Ask the client to send nothing more on a stream."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            self.stop_stream(stream_id, code)


def _is_over(stream: QuicStream) -> bool:
    return stream.sender._buffer_fin is not None or stream.sender._reset_error_code is not None
