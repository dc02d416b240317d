"""What a database says of an address, read from any of the record shapes in use."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .places import CONTINENT_OF, CONTINENTS, UNKNOWN, continent_of

_SUBDIVISION = re.compile(r"[A-Z0-9]{1,3}")
_AS = re.compile(r"(?:AS)?([0-9]{1,10})")
_MAX_AS = 2**32 - 1  # RFC 6793


class Place(NamedTuple):
    """Where an address is. What is not known has the value it has here."""

    country: str = UNKNOWN  # ISO 3166-1 alpha-2
    continent: str = UNKNOWN  # AF AN AS EU NA OC SA
    region: str = ""  # ISO 3166-2, such as GB-ENG
    city: str = ""  # in English
    timezone: str = ""  # of the IANA database, such as Europe/London
    asn: int = 0
    as_name: str = ""


NOWHERE = Place()


def place_in(record: object) -> Place:
    """The place that `record` names. Parts of an unexpected shape are unknown, never an error."""
    if isinstance(record, str):
        record = {"country": record}
    if not isinstance(record, dict):
        return NOWHERE
    country = _country(record)
    location = record.get("location")
    return Place(
        country,
        _continent(record, country),
        _region(record, country),
        _text(_english(record.get("city"))),
        _text(
            location.get("time_zone")
            if isinstance(location, dict)
            else record.get("timezone") or record.get("time_zone")
        ),
        _as_number(record),
        _text(
            record.get("autonomous_system_organization")
            or record.get("as_name")
            or record.get("as_organization")
        ),
    )


def merged(first: Place, second: Place) -> Place:
    """`first`, with what it does not know taken from `second`.

    Region, city and time zone come along only if both mean the same country: databases disagree,
    and a region of another country would be worse than none.
    """
    if first is NOWHERE or second is NOWHERE:
        return second if first is NOWHERE else first
    if first.country == UNKNOWN:
        place = second if second.country != UNKNOWN or first.continent == UNKNOWN else first
    elif first.country == second.country:
        place = first._replace(
            region=first.region or second.region,
            city=first.city or second.city,
            timezone=first.timezone or second.timezone,
        )
    else:
        place = first
    numbered = first if first.asn else second
    return place._replace(asn=numbered.asn, as_name=numbered.as_name)


def _country(record: dict[str, Any]) -> str:
    """The country a client is in; where a provider gives none, the one its network is of."""
    for key in ("country_code", "country", "registered_country"):
        code = _code(record.get(key), "iso_code")
        if code in CONTINENT_OF:
            return code
    return UNKNOWN


def _continent(record: dict[str, Any], country: str) -> str:
    for key in ("continent_code", "continent"):
        code = _code(record.get(key), "code")
        if code in CONTINENTS:
            return code
    return continent_of(country)


def _region(record: dict[str, Any], country: str) -> str:
    subdivisions = record.get("subdivisions")
    if isinstance(subdivisions, list) and subdivisions:
        code = _code(subdivisions[0], "iso_code")  # the widest comes first
    else:
        code = _code(record.get("region_code"), "iso_code")
    code = code.removeprefix(f"{country}-")
    known = country != UNKNOWN and _SUBDIVISION.fullmatch(code)
    return f"{country}-{code}" if known else ""


def _code(value: object, key: str) -> str:
    """A code that stands alone or under `key` of a dict; empty if it does neither."""
    if isinstance(value, dict):
        value = value.get(key)
    return value.upper() if isinstance(value, str) else ""


def _english(value: object) -> object:
    if isinstance(value, dict):
        names = value.get("names")
        return names.get("en") if isinstance(names, dict) else None
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) and value != "None" else ""


def _as_number(record: dict[str, Any]) -> int:
    value = record.get("autonomous_system_number") or record.get("asn")
    if isinstance(value, str):
        match = _AS.fullmatch(value)
        value = int(match.group(1)) if match else 0
    return value if type(value) is int and 0 <= value <= _MAX_AS else 0
