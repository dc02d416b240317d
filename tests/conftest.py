"""Data that lies beside the checkout, for the tests that want real sites and real addresses.

And what holds for every property: no clock judges it, since a busy machine would then fail it.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from edgeproxy.policy.model import PolicyCore

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

ACCELERATOR = os.environ.get("EDGEPROXY_TEST_ACCELERATOR", "on")
"""`off`: every policy that says nothing of the accelerator is served without it."""
if ACCELERATOR == "off":
    PolicyCore.model_fields["accelerator"].default = "off"
    PolicyCore.model_rebuild(force=True)

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def beside_the_checkout(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the folder ../shared/{name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def shared_sites() -> Path:
    """Sites as their owners publish them: `keepachangelog/site`, `httpcore-docs/site`."""
    return beside_the_checkout("sites")


@pytest.fixture(scope="session")
def shared_geoip() -> Path:
    """A country database and addresses whose country is known."""
    return beside_the_checkout("geoip")
