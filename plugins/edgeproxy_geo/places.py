"""Countries, the continents they lie on, and the groups they belong to."""

from __future__ import annotations

import re
from difflib import get_close_matches

UNKNOWN = "XX"


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ISO 3166-1 alpha-2, and XK, which databases use for Kosovo. Where a country lies on two
# continents, or is an island between them, this follows GeoNames, as most databases do.
COUNTRIES_OF = {
    "AF": _codes(
        "AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW KE KM LR LS LY MA "
        "MG ML MR MU MW MZ NA NE NG RE RW SC SD SH SL SN SO SS ST SZ TD TG TN TZ UG YT ZA ZM "
        "ZW"
    ),
    "AN": _codes("AQ BV GS HM TF"),
    "AS": _codes(
        "AE AF AM AZ BD BH BN BT CC CN GE HK ID IL IN IO IQ IR JO JP KG KH KP KR KW KZ LA LB LK "
        "MM MN MO MV MY NP OM PH PK PS QA SA SG SY TH TJ TM TR TW UZ VN YE"
    ),
    "EU": _codes(
        "AD AL AT AX BA BE BG BY CH CY CZ DE DK EE ES FI FO FR GB GG GI GR HR HU IE IM IS IT JE "
        "LI LT LU LV MC MD ME MK MT NL NO PL PT RO RS RU SE SI SJ SK SM UA VA XK"
    ),
    "NA": _codes(
        "AG AI AW BB BL BM BQ BS BZ CA CR CU CW DM DO GD GL GP GT HN HT JM KN KY LC MF MQ MS MX "
        "NI PA PM PR SV SX TC TT US VC VG VI"
    ),
    "OC": _codes(
        "AS AU CK CX FJ FM GU KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TL TO TV UM VU WF WS"
    ),
    "SA": _codes("AR BO BR CL CO EC FK GF GY PE PY SR UY VE"),
}

CONTINENTS = frozenset(COUNTRIES_OF)
CONTINENT_OF = {code: continent for continent, codes in COUNTRIES_OF.items() for code in codes}
EVERY_COUNTRY = frozenset(CONTINENT_OF) | {UNKNOWN}

_EU = _codes("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK")
# Parts of Finland and France in the Union's territory that have codes of their own (TEU, article
# 52; TFEU, articles 349 and 355).
_EU_TERRITORIES = _codes("AX GF GP MF MQ RE YT")
_EU_OUTSIDE_SCHENGEN = _codes("CY IE")

GROUPS = {
    "eu": _EU | _EU_TERRITORIES,
    "eea": _EU | _EU_TERRITORIES | _codes("IS LI NO"),
    # In Europe only: of the territories just Åland; not Svalbard, the Faroes or Greenland.
    "schengen": (_EU - _EU_OUTSIDE_SCHENGEN) | _codes("AX CH IS LI NO"),
}

_USUAL_MISTAKES = {"UK": "GB", "EN": "GB", "EL": "GR", "USA": "US", "UAE": "AE", "SP": "ES"}
_REGION = re.compile(r"([A-Z]{2})-([A-Z0-9]{1,3}|\*)")  # ISO 3166-2; `*` is ours


def country_code(code: str) -> str:
    """`code`, if it is a country's or XX for unknown. ValueError with the nearest ones if not."""
    if code in CONTINENT_OF or code == UNKNOWN:
        return code
    big = code.upper()
    if code == "EU":
        hint = "EU is a continent (`continent: EU`) and a union (`country_group: eu`)"
    elif big in CONTINENT_OF:
        hint = f"country codes are upper case: {big}"
    else:
        near = get_close_matches(big, sorted(CONTINENT_OF))
        near = [_USUAL_MISTAKES[big]] if big in _USUAL_MISTAKES else near
        hint = f"did you mean {' or '.join(near)}?" if near else "write two letters, such as FR"
    raise ValueError(f"{code!r} is no country of ISO 3166-1; {hint}")


def continent_of(country: str) -> str:
    """The continent that `country` lies on; XX if the country is not known."""
    return CONTINENT_OF.get(country, UNKNOWN)


def continent_code(code: str) -> str:
    """`code`, if it is a continent's or XX for unknown. ValueError if not."""
    if code in CONTINENTS or code == UNKNOWN:
        return code
    raise ValueError(f"{code!r} is no continent; known: {', '.join(sorted(CONTINENTS))}")


def group_name(name: str) -> str:
    """`name`, if it is one of GROUPS. ValueError if not."""
    if name in GROUPS:
        return name
    raise ValueError(f"{name!r} is no group of countries; known: {', '.join(sorted(GROUPS))}")


def region_code(code: str) -> str:
    """`code`, if it is a region such as `GB-ENG`, or `GB-*`. ValueError if not."""
    match = _REGION.fullmatch(code)
    if match is None or code.startswith(UNKNOWN):
        raise ValueError(f"{code!r} is no region of ISO 3166-2; write for example GB-ENG or GB-*")
    country_code(match.group(1))
    return code
