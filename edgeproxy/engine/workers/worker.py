"""A worker process from within: it serves, and does what its supervisor asks for.

Run as `python -m edgeproxy.engine.workers.worker DESCRIPTOR`, with a socket to the supervisor. It
ends when it is told to, by SIGTERM, and when it has no supervisor any more.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path

import uvloop

from edgeproxy import log, memory
from edgeproxy.addresses import BadAddress
from edgeproxy.admin import BY_OPERATION, Ask, Refusal, answered_by, app_operations
from edgeproxy.engine.edge import Edge
from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.process import eager_task
from edgeproxy.engine.workers.carrying import (
    read_marks,
    read_record,
    read_sources,
    words_of_faults,
)
from edgeproxy.engine.workers.channel import NOTHING, Channel, Message, Refused
from edgeproxy.engine.workers.fellows import Fellows
from edgeproxy.errors import PolicyError
from edgeproxy.live import Live
from edgeproxy.plan import Plan
from edgeproxy.rollout import PolicyFiles


class Worker:
    """Its methods are what a supervisor may ask for; `run` first."""

    def __init__(self) -> None:
        self._stopped = asyncio.Event()
        self._channel = Channel(
            {
                "serve": self.serve, "stop": self.stop, "ping": self.ping,
                "prepare": self.prepare, "commit": self.commit, "discard": self.discard,
                "set_share": self.set_share, "end_trial": self.end_trial, "tried": self.tried,
                "marks": self.heed, "admin": self.admin,
            }
        )  # fmt: skip
        self._edge: Edge | None = None
        self._files = PolicyFiles(())
        self._ask: Ask | None = None
        self._prepared: Live | None = None

    @property
    def edge(self) -> Edge:
        if self._edge is None:
            raise Refused("it does not serve yet")
        return self._edge

    async def run(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(eager_task)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor reloads
        await self._channel.open(sock)
        orphaned = asyncio.ensure_future(self._channel.lost())
        orphaned.add_done_callback(lambda _: self._stopped.set())
        await self._stopped.wait()
        if self._edge is not None:
            await self._edge.drain()
            await self._edge.close()
        self._channel.close()

    # ------------------------------------------------------------ its life

    async def serve(self, order: Message) -> Message:
        """Begin, with the policies that are in force and on trial, and what has been purged."""
        log.set_up(order["log_level"], who=f"worker {order['number']}: ")
        listen = [ListenAddress(**words) for words in order["listen"]]
        paths = [Path(text) for text in order["paths"]]
        self._files = PolicyFiles(paths, order["origins"], any(one.tls for one in listen))
        edge = Edge(
            listen,
            access_log=order["access_log"],
            neighbours=Fellows(self._channel),
            record=read_record(order["record"]),
        )
        edge.app.purges.merge(read_marks(order["marks"]))
        self._edge = edge
        try:
            await edge.app.load(await self._compiled(order["policy"]))
            if order["candidate"] is not None:
                plan = await self._compiled(order["candidate"], beside=True)
                await edge.app.try_out(plan, order["share"])
            self._ask = answered_by(*app_operations(edge.app))
            await edge.open()
        except PolicyError as error:
            return Message({"faults": words_of_faults(error)})
        except BadAddress as error:
            return Message({"bad_address": str(error)})
        memory.settle()
        return NOTHING

    async def stop(self, _: Message) -> Message:
        self._stopped.set()
        return NOTHING

    async def ping(self, _: Message) -> Message:
        return NOTHING

    # ------------------------------------------------------------ policies

    async def prepare(self, order: Message) -> Message:
        """Make a policy ready to be put in force, or beside the one that is. Nothing changes."""
        app = self.edge.app
        try:
            plan = await self._compiled(order["policy"], beside=order["beside"])
            self._prepared = await app.opened(plan)
        except PolicyError as error:
            return Message({"faults": words_of_faults(error)})
        return NOTHING

    async def commit(self, order: Message) -> Message:
        """Use what was prepared. This cannot fail."""
        live, self._prepared = self._prepared, None
        if live is None:
            raise Refused("nothing is prepared")
        if order["share"] is None:
            self.edge.app.put_in_force(live)
            self.edge.follow(live.plan.policy)
        else:
            self.edge.app.put_beside(live, order["share"])
        return NOTHING

    async def discard(self, _: Message) -> Message:
        live, self._prepared = self._prepared, None
        if live is not None:
            self.edge.app.give_up(live)
        return NOTHING

    async def set_share(self, order: Message) -> Message:
        if self.edge.app.candidate is not None:
            await self.edge.app.set_share(order["share"])
        return NOTHING

    async def end_trial(self, _: Message) -> Message:
        await self.edge.app.end_trial()
        return NOTHING

    async def tried(self, _: Message) -> Message:
        """What the candidate has done here."""
        app = self.edge.app
        report = await app.trial_report() if app.candidate is not None else None
        return Message({"report": report})

    async def _compiled(self, policy: list[list[str]], *, beside: bool = False) -> Plan:
        """In a thread, so that what is served goes on."""
        app = self.edge.app

        def compiled() -> Plan:
            reuse = {plugin.name: plugin for plugin in app.plugins}
            return app.compile(self._files.compose(read_sources(policy), reuse), beside=beside)

        return await asyncio.to_thread(compiled)

    # ------------------------------------------------------------ what all have in common

    async def heed(self, order: Message) -> Message:
        if self._edge is not None:  # else `serve` will tell
            self._edge.app.heed(read_marks(order["marks"]))
        return NOTHING

    async def admin(self, question: Message) -> Message:
        """The answer of an admin listener, if this process had one; or what it refuses with."""
        if self._ask is None:
            raise Refused("it does not serve yet")
        route = BY_OPERATION[question["operation"]]
        try:
            answer = await self._ask(route, route.asked.model_validate_json(question.data))
        except Refusal as refusal:
            return Message({"refusal": [refusal.status, refusal.code, refusal.reason]})
        return Message({"answer": answer})


async def work(descriptor: int) -> None:
    await Worker().run(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(int(sys.argv[1])))
