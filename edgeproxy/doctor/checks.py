"""Every check, in the order that its verdicts are shown."""

from edgeproxy.doctor import machine, origins, serving
from edgeproxy.doctor.verdict import Check

CHECKS: tuple[Check, ...] = (
    machine.packages,
    machine.plugins,
    machine.user,
    machine.descriptors,
    machine.memory,
    machine.folders,
    machine.data_files,
    serving.ports,
    serving.certificates,
    serving.names,
    serving.acme,
    serving.keys,
    serving.trusted_proxies,
    serving.admin_token,
    origins.dns,
    origins.answers,
    origins.pages,
    origins.clock,
)
