"""One certificate, from an order to its file, by certbot's library. It blocks: for a thread."""

from __future__ import annotations

import contextlib
import fcntl
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from acme import challenges as acme_challenges
from acme import client, crypto_util, errors, messages
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC
from pydantic_core import PydanticCustomError

from edgeproxy import __version__
from edgeproxy.acme.challenges import Challenges
from edgeproxy.policy.acme import AcmeConfig
from edgeproxy.policy.certificates import load_pair
from edgeproxy.private_file import write_private

ANSWER_S = 15  # for the directory to answer one request
VALIDATION_S = 120  # for it to come and see the proof, and to sign
POLL_S = 1
MAX_AFTER_S = 7 * 24 * 3600.0  # that an authority may put us off: its longest limits are a week
NONCES = 5  # that may be refused, two at a time


class NotIssued(Exception):
    """Why there is no certificate; `after_s` if the authority said when to come again."""

    def __init__(self, reason: str, after_s: float = 0) -> None:
        self.after_s = after_s
        super().__init__(reason)


class Busy(Exception):
    """Another process is at it."""


@acme_challenges.ChallengeResponse.register
class _TlsAlpnResponse(acme_challenges.KeyAuthorizationChallengeResponse):
    typ = "tls-alpn-01"


@acme_challenges.Challenge.register  # the library has it no more
class _TlsAlpn(acme_challenges.KeyAuthorizationChallenge):
    response_cls = _TlsAlpnResponse
    typ = "tls-alpn-01"

    def validation(self, account_key: JWK, **_: Any) -> str:
        return self.key_authorization(account_key)


class _Network(client.ClientNetwork):
    """Asks again when a nonce is not good any more (RFC 8555, section 6.5); the library's own does
    so once, which is once in a while too few."""

    def post(self, *arguments: Any, **options: Any) -> Any:
        for _ in range(NONCES):
            try:
                return super().post(*arguments, **options)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*arguments, **options)


class Issuer:
    """Has certificates issued for what `config` says; all that lasts is below `state`.

    `stop` is set when the process is to end.
    """

    def __init__(self, config: AcmeConfig, state: Path, stop: threading.Event) -> None:
        self._config = config
        self._state = state
        self._folder = config.folder(state)
        self._challenges = Challenges(state / "acme" / "challenges")
        self._stop = stop
        self._retry_after = ""

    def issue(self, name: str) -> None:
        """Put a new certificate for `name` in place. Raises NotIssued or Busy, with the old one as
        it was."""
        try:
            with self._alone():
                self._challenges.clear()
                self._issue(name)
        except errors.ValidationError as error:
            raise NotIssued(_why_invalid(error)) from error
        except messages.Error as error:
            raise NotIssued(_told(error), self._after_s()) from error
        except (errors.Error, JoseError, OSError, ValueError, KeyError) as error:
            raise NotIssued(_plain(error), self._after_s()) from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time, of all that share the folder."""
        lock = self._state / "acme" / "lock"
        lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with lock.open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy from None
            yield

    def _issue(self, name: str) -> None:
        key = _pem(ec.generate_private_key(ec.SECP256R1()))
        with self._client() as acme:
            order = acme.new_order(crypto_util.make_csr(key, domains=[name]))
            for authorization in order.authorizations:
                if authorization.body.status != messages.STATUS_VALID:
                    self._prove(acme, authorization, name)
            self._put(name, key + self._finalized(acme, order).encode())

    # ------------------------------------------------------------ the account

    @contextlib.contextmanager
    def _client(self) -> Iterator[client.ClientV2]:
        """A client with an account."""
        net = _Network(
            self._key(),
            alg=ES256,
            user_agent=f"edgeproxy/{__version__}",
            verify_ssl=self._config.ca_file or True,  # type: ignore[arg-type]  # or a file
            timeout=ANSWER_S,
        )
        net.session.hooks["response"].append(self._note)
        with net.session:
            acme = client.ClientV2(client.ClientV2.get_directory(self._config.url, net), net)
            net.account = messages.RegistrationResource(
                uri=self._registered(acme), body=messages.Registration()
            )
            yield acme

    def _key(self) -> JWKEC:
        """The key of the account, which is all that has to be kept of it."""
        file = self._folder / "account.json"
        if file.exists():
            return JWKEC.fields_from_json(json.loads(file.read_text()))
        key = JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
        write_private(file, json.dumps(key.to_json()).encode())
        return key

    def _registered(self, acme: client.ClientV2) -> str:
        """The account of the key: a new one, or the one that there is (RFC 8555, section 7.3.1)."""
        account = messages.NewRegistration.from_data(
            email=self._config.email, terms_of_service_agreed=True
        )
        try:
            return str(acme.new_account(account).uri)
        except errors.ConflictError as error:
            return str(error.location)

    # ------------------------------------------------------------ the proof

    def _prove(
        self, acme: client.ClientV2, authorization: messages.AuthorizationResource, name: str
    ) -> None:
        kind = self._config.challenge
        found = [each for each in authorization.body.challenges if each.chall.typ == kind]
        if not found:
            raise NotIssued(f"the authority does not offer {kind} for {name}")
        body = found[0]
        response, proof = body.chall.response_and_validation(acme.net.key)
        with self._shown(name, body.chall.encode("token"), proof):
            acme.answer_challenge(body, response)
            self._validated(acme, authorization)

    def _shown(self, name: str, token: str, proof: str) -> contextlib.AbstractContextManager[None]:
        if self._config.challenge == "http-01":
            return self._challenges.http_proof(token, proof)
        return self._challenges.tls_proof(name, proof)

    def _validated(
        self, acme: client.ClientV2, authorization: messages.AuthorizationResource
    ) -> None:
        for _ in self._polls():
            authorization, _answer = acme.poll(authorization)
            status = authorization.body.status
            if status == messages.STATUS_VALID:
                return
            if status != messages.STATUS_PENDING:
                raise errors.ValidationError([authorization])

    def _finalized(self, acme: client.ClientV2, order: messages.OrderResource) -> str:
        """The certificate and those that lead to its authority, in PEM."""
        with contextlib.suppress(errors.TimeoutError):
            return str(acme.finalize_order(order, _until(2 * POLL_S)).fullchain_pem)
        for _ in self._polls():
            with contextlib.suppress(errors.TimeoutError):
                return str(acme.poll_finalization(order, _until(2 * POLL_S)).fullchain_pem)
        raise NotIssued("the authority did not sign in time")

    def _polls(self) -> Iterator[None]:
        """One after each pause, until it takes too long. Raises NotIssued then."""
        for _ in range(VALIDATION_S // POLL_S):
            if self._stop.wait(POLL_S):
                raise NotIssued("edgeproxy ends")
            yield
        raise NotIssued(f"the authority did not come to an end within {VALIDATION_S} s")

    # ------------------------------------------------------------ what comes of it

    def _put(self, name: str, pem: bytes) -> None:
        """In place of the former, if it can be served."""
        file = Path(self._config.files(self._state, name)[0])
        draft = file.with_name(f".{file.name}.new")
        write_private(draft, pem)
        try:
            loaded = load_pair(str(draft), str(draft))
        except PydanticCustomError as error:
            draft.unlink()
            raise NotIssued(f"what the authority sent cannot be used: {error.message()}") from None
        if name not in loaded.names:
            draft.unlink()
            raise NotIssued(f"the authority sent {loaded}")
        draft.rename(file)

    def _note(self, response: Any, *_: Any, **__: Any) -> None:
        self._retry_after = response.headers.get("Retry-After", "")

    def _after_s(self) -> float:
        """What the last answer said of when to come again (RFC 9110, section 10.2.3)."""
        text, after_s = self._retry_after, 0.0
        if text.isascii() and text.isdigit():
            after_s = float(text)
        else:
            with contextlib.suppress(TypeError, ValueError):
                moment = parsedate_to_datetime(text)
                after_s = (moment - datetime.now(moment.tzinfo)).total_seconds()
        return min(max(after_s, 0.0), MAX_AFTER_S)


def _until(within_s: float) -> datetime:
    return datetime.now() + timedelta(seconds=within_s)  # as the library counts, without a zone


def _why_invalid(error: errors.ValidationError) -> str:
    told = [
        _told(challenge.error)
        for authorization in error.failed_authzrs
        for challenge in authorization.body.challenges
        if challenge.error is not None
    ]
    return "; ".join(told) or "the authority refuses the proof, and does not say why"


def _told(error: messages.Error) -> str:
    return f"{error.detail or error.title or 'no reason is given'} [{error.code or error.typ}]"


def _plain(error: Exception) -> str:
    """What happened, where the library says no more than what it met."""
    answer: Any = error.args[0] if error.args else None
    if isinstance(error, errors.ClientError) and hasattr(answer, "status_code"):
        return f"the directory answers {answer.status_code}, and not as ACME has it"
    return f"{type(error).__name__}: {error}"


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
