"""Countries, continents and groups."""

import pytest

from edgeproxy_geo import places


def test_every_country_lies_on_one_continent() -> None:
    assert sum(map(len, places.COUNTRIES_OF.values())) == len(places.CONTINENT_OF)
    assert len(places.CONTINENT_OF) == 249 + 1  # ISO 3166-1, and XK
    assert places.UNKNOWN not in places.CONTINENT_OF


@pytest.mark.parametrize(
    ("country", "continent"),
    [("FR", "EU"), ("CY", "EU"), ("RU", "EU"), ("TR", "AS"), ("GE", "AS"), ("EG", "AF"),
     ("US", "NA"), ("GL", "NA"), ("BR", "SA"), ("AU", "OC"), ("TL", "OC"), ("AQ", "AN")],
)  # fmt: skip
def test_countries_on_the_border_of_continents_follow_geonames(
    country: str, continent: str
) -> None:
    assert places.CONTINENT_OF[country] == continent


def test_groups_have_the_members_of_2026() -> None:
    territories = {"AX", "GF", "GP", "MF", "MQ", "RE", "YT"}
    eu, eea, schengen = (places.GROUPS[name] for name in ("eu", "eea", "schengen"))
    assert len(eu - territories) == 27
    assert len(eea - territories) == 30
    assert len(schengen - {"AX"}) == 29
    assert {"HR", "IE", "CY"} <= eu
    assert not {"GB", "CH", "NO", "IS", "XK", "UA"} & eu
    assert eea - eu == {"IS", "LI", "NO"}
    assert schengen - eea == {"CH"}
    assert eea - schengen - territories == {"CY", "IE"}
    assert {"BG", "RO"} <= schengen


def test_groups_hold_only_countries() -> None:
    for members in places.GROUPS.values():
        assert members <= places.CONTINENT_OF.keys()


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("UK", "did you mean GB?"),
        ("EL", "did you mean GR?"),
        ("USA", "did you mean US?"),
        ("DEU", "did you mean DE?"),
        ("de", "country codes are upper case: DE"),
        ("EU", "EU is a continent (`continent: EU`) and a union (`country_group: eu`)"),
        ("QQ", "write two letters, such as FR"),
        ("", "write two letters, such as FR"),
    ],
)
def test_a_wrong_country_comes_with_the_right_one(code: str, hint: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        places.country_code(code)
    assert str(caught.value) == f"{code!r} is no country of ISO 3166-1; {hint}"


@pytest.mark.parametrize("code", ["GB", "GB-", "GB-ENGL", "gb-eng", "GB_ENG", "XX-*", "GB-**", "*"])
def test_what_is_no_region_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="is no region of ISO 3166-2"):
        places.region_code(code)


def test_a_region_of_no_country_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean GB"):
        places.region_code("UK-ENG")
