"""Routes of the admin listener about policies: the one in force, former ones, one on trial."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from edgeproxy.admin.messages import MAX_POLICY_BYTES, Refusal, answer, read_body, read_query
from edgeproxy.errors import PolicyError
from edgeproxy.rollout import Refused, Rollout
from edgeproxy.rollout.history import Text, Version

MAX_FILES = 1000
MAX_WORDS = 200
_WHO = ("by", "why")


class PolicyRoutes:
    """`routes` is what the listener serves of them."""

    def __init__(self, rollout: Rollout) -> None:
        self._rollout = rollout

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/policy", self._shown),
            web.get("/policy/status", self._status),
            web.get("/policy/history", self._history),
            web.post("/policy/reload", self._changing(self._reload)),
            web.post("/policy/rollback", self._changing(self._rollback)),
            web.post("/policy/shadow", self._changing(self._shadow)),
            web.post("/policy/canary", self._changing(self._canary)),
            web.post("/policy/promote", self._changing(self._promote)),
            web.post("/policy/abort", self._changing(self._abort)),
        ]

    # ------------------------------------------------------------ looking

    async def _shown(self, request: web.Request) -> web.Response:
        name = read_query(request, "version").get("version")
        history = self._rollout.history
        found = history.versions[-1] if name is None else history.find(name)
        if found is None:
            raise Refusal(404, "no-such-version", f"no version {name!r} is kept")
        files = [{"name": name, "text": text} for name, text in found.sources]
        return answer({**_described(found), "files": files})

    async def _history(self, request: web.Request) -> web.Response:
        versions = [_described(one) for one in reversed(self._rollout.history.versions)]
        return answer({"versions": versions, "kept": self._rollout.history.kept})

    async def _status(self, request: web.Request) -> web.Response:
        return answer(await self._state())

    async def _state(self) -> dict[str, Any]:
        return {
            "in_force": _described(self._rollout.history.versions[-1]),
            "files_are_other": self._rollout.are_files_other(),
            "candidate": await self._tried(),
        }

    async def _tried(self) -> dict[str, Any] | None:
        trial = self._rollout.app.candidate
        if trial is None:
            return None
        return {
            "version": trial.plan.version,
            "percent": trial.share * 100,
            "since": _moment(trial.since_s),
            "by": trial.by,
            "why": trial.why,
            "files": list(trial.plan.policy.files),
            **await self._rollout.app.trial_report(),
        }

    # ------------------------------------------------------------ changing

    def _changing(
        self, change: Callable[[web.Request], Awaitable[None]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """`change`, answered with the state that it leads to, or with why nothing was changed."""

        async def changed(request: web.Request) -> web.Response:
            try:
                await change(request)
            except PolicyError as error:
                raise Refusal(409, "policy-faults", str(error)) from None
            except Refused as refused:
                status = 404 if refused.code == "no-such-version" else 409
                raise Refusal(status, refused.code, str(refused)) from None
            return answer({"policy": self._rollout.app.plan.version, **await self._state()})

        return changed

    async def _reload(self, request: web.Request) -> None:
        await self._rollout.reload(**_who(await read_body(request, known=_WHO)))

    async def _rollback(self, request: web.Request) -> None:
        data = await read_body(request, known=("version", *_WHO))
        await self._rollout.rollback(_text(data, "version") or None, **_who(data))

    async def _shadow(self, request: web.Request) -> None:
        data = await read_body(request, MAX_POLICY_BYTES, known=("files", "tests", *_WHO))
        await self._try_out(data, 0.0)

    async def _canary(self, request: web.Request) -> None:
        known = ("files", "tests", "percent", *_WHO)
        data = await read_body(request, MAX_POLICY_BYTES, known=known)
        await self._try_out(data, _share(data.get("percent")))

    async def _try_out(self, data: dict[str, Any], share: float) -> None:
        texts, tests = _texts(data, "files"), _texts(data, "tests")
        await self._rollout.try_out(texts, share, **_who(data), tests=tests)

    async def _promote(self, request: web.Request) -> None:
        await self._rollout.promote(**_who(await read_body(request, known=_WHO)))

    async def _abort(self, request: web.Request) -> None:
        await self._rollout.abort(_who(await read_body(request, known=_WHO))["by"])


def _described(one: Version) -> dict[str, Any]:
    """All but what is in the files."""
    return {
        "number": one.number, "version": one.version, "at": _moment(one.at_s), "event": one.event,
        "by": one.by, "why": one.why, "files": [name for name, _ in one.sources],
    }  # fmt: skip


def _moment(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key, "")
    if not isinstance(value, str):
        raise Refusal(400, "bad-request", f"{key} is text")
    return value


def _who(data: dict[str, Any]) -> dict[str, str]:
    """Who wants it and why, for the history and the log."""
    for key in _WHO:
        if not _text(data, key).isprintable() or len(_text(data, key)) > MAX_WORDS:
            raise Refusal(400, "bad-request", f"{key} is one line of up to {MAX_WORDS} characters")
    return {"by": _text(data, "by") or "admin", "why": _text(data, "why")}


def _share(percent: Any) -> float:
    is_number = isinstance(percent, int | float) and not isinstance(percent, bool)
    if not is_number or not 0 < percent <= 100:
        raise Refusal(400, "bad-request", "percent is a number above 0, up to 100")
    return float(percent) / 100


def _texts(data: dict[str, Any], key: str) -> list[Text]:
    """The texts that were sent, with the names that faults show."""
    files = data.get(key, [])
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise Refusal(400, "bad-request", f"{key} is a list of up to {MAX_FILES} files")
    found: dict[str, str] = {}
    for one in files:
        if not (isinstance(one, dict) and one.keys() == {"name", "text"}):
            raise Refusal(400, "bad-request", "a file has a name and a text")
        name = _text(one, "name")
        if not name.isprintable() or not name or len(name) > 255 or name in found:
            raise Refusal(400, "bad-request", f"{name!r} is no name for a file, or here twice")
        found[name] = _text(one, "text")
    return list(found.items())
