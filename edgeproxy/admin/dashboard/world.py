"""A map of the world as squares: one for each country, about where it lies from its neighbours.

There is no geometry in it, so nothing has to be downloaded or licensed, and a small country is as
easy to see as a large one. Names come from the browser, which has them in `Intl`.
"""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from edgeproxy.admin.dashboard.words import number, percent

PLACES = """\
.  .  .  .  GL .  .  .  .  IS FO .  NO SE FI .  .  .  .  .  .  .  .  .  .  .  .  .  .
.  .  .  .  .  .  .  .  .  .  .  .  DK .  EE .  RU .  .  .  .  .  .  .  .  .  .  .  .
.  .  .  .  .  .  .  .  .  IE GB NL DE PL LV BY .  .  .  .  .  .  .  .  .  .  .  .  .
.  CA .  .  .  .  .  .  .  .  BE LU LI CZ LT UA .  .  .  .  .  .  .  .  .  .  .  .  .
.  US .  PM .  .  .  .  .  .  FR CH AT SK HU MD .  .  KZ .  .  .  .  .  .  .  .  .  .
.  .  .  BM .  .  .  .  .  .  AD MC SI HR RS RO .  GE UZ KG .  MN .  KP .  .  .  .  .
MX .  CU BS TC .  .  .  .  PT ES IT SM BA XK BG TR AM AZ TJ .  CN .  KR JP .  .  .  .
GT BZ JM HT DO PR .  .  .  .  GI VA MT ME MK CY SY IQ TM AF NP BT MO HK TW .  .  .  .
SV HN KY .  VI KN AG .  .  .  .  .  .  AL GR LB JO KW IR PK IN BD MM LA VN .  .  .  .
.  NI .  .  GP DM MQ .  .  EH MA DZ TN LY EG IL PS SA BH QA .  LK TH KH .  PH .  .  .
.  CR AW CW GD VC LC .  CV SN MR ML NE TD SD ER .  YE OM AE MV .  MY BN .  PW GU MP .
.  PA CO VE TT BB .  .  GM GW GN BF BJ NG CF ET DJ .  .  .  .  .  SG ID TL PG FM MH .
.  .  EC BR GY SR GF .  SL LR CI GH TG CM SS KE SO .  .  .  .  .  .  .  AU SB NR KI .
.  .  PE BO PY .  .  .  .  .  .  ST GQ CG CD UG TZ .  SC .  .  .  .  .  .  VU TV WS AS
.  .  CL AR UY .  .  .  .  .  .  .  GA AO BI RW .  KM .  .  .  .  .  .  .  NC FJ TO PF
.  .  .  .  FK .  .  .  .  .  .  .  .  NA ZM MW MZ MG MU .  .  .  .  .  .  NZ .  CK .
.  .  .  .  .  .  .  .  .  .  .  .  .  .  BW ZW SZ .  RE .  .  .  .  .  .  .  .  .  .
.  .  .  .  .  .  .  .  .  .  .  .  .  .  ZA LS .  .  .  .  .  .  .  .  .  .  .  .  .
"""
_AT = {
    code: (x, y)
    for y, row in enumerate(PLACES.splitlines())
    for x, code in enumerate(row.split())
    if code != "."
}
_WIDTH = 1 + max(x for x, _ in _AT.values())
_HEIGHT = 1 + max(y for _, y in _AT.values())
_STEP, _SIDE = 20, 18  # from square to square, and of a square

SHADES = ((0.0, "under 1 %"), (0.01, "1 to 5 %"), (0.05, "5 to 15 %"), (0.15, "15 % and more"))
"""From which share of the requests, and in words; the darkest last."""


def drawn(counts: Mapping[str, int]) -> Markup:
    """The map, with countries shaded by their share of `counts`. One at a time can have the focus,
    and says what it is; arrow keys go on from it."""
    total = sum(counts.values())
    here = [code for code in _AT if counts.get(code)]
    others = [code for code in _AT if not counts.get(code)]
    squares = "".join(f"M{_x(code)} {_y(code)}h{_SIDE}v{_SIDE}h-{_SIDE}z" for code in others)
    names = "".join(_label(code) for code in others)
    parts = [
        f'<svg class="world" viewBox="0 0 {_WIDTH * _STEP} {_HEIGHT * _STEP}" role="group" '
        f'aria-label="Requests by country"><g aria-hidden="true"><path d="{squares}"/>{names}</g>'
    ]
    parts += [
        _country(code, counts[code], counts[code] / total, is_first=not number_)
        for number_, code in enumerate(here)
    ]
    return Markup("".join((*parts, "</svg>")))


def elsewhere(counts: Mapping[str, int]) -> int:
    """How many have no square: those of small territories, and of nobody knows where."""
    return sum(count for code, count in counts.items() if code not in _AT)


def _country(code: str, count: int, share: float, *, is_first: bool) -> str:
    shade = sum(share >= least for least, _ in SHADES)
    square = f'<rect x="{_x(code)}" y="{_y(code)}" width="{_SIDE}" height="{_SIDE}" rx="2"/>'
    told = f"{number(count)} {'request' if count == 1 else 'requests'}, {percent(share)}"
    return (
        f'<g id="country-{code}" class="shade-{shade}" tabindex="{0 if is_first else -1}" '
        f'role="img" aria-labelledby="told-{code}">{square}{_label(code)}'
        f'<text id="told-{code}" class="told" y="{(_HEIGHT - 1) * _STEP - 6}">'
        f'<tspan data-region="{code}">{code}</tspan> '
        f'<tspan x="0" dy="{_STEP}">{told}</tspan></text></g>'
    )


def _label(code: str) -> str:
    return f'<text x="{_x(code) + _SIDE // 2}" y="{_y(code) + 12}">{code}</text>'


def _x(code: str) -> int:
    return _AT[code][0] * _STEP


def _y(code: str) -> int:
    return _AT[code][1] * _STEP
