"""What kind of device a client says it is. Simple on purpose: tokens, in a fixed order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Literal

import re2

from edgeproxy.api import Headers

Device = Literal["desktop", "mobile", "tablet", "bot"]

MAX_LENGTH = 512  # characters of User-Agent that are read
CACHE_SIZE = 2048  # user agents whose class is remembered

# Automatic clients that say so. Tools that people run (curl, wget, HTTP libraries) are not here.
BOTS = (
    # Search.
    "googlebot", "google-inspectiontool", "adsbot-google", "mediapartners-google", "googleother",
    "apis-google", "feedfetcher-google", "storebot-google", "bingbot", "bingpreview", "adidxbot",
    "msnbot", "yandex.com/bots", "yandexbot", "baiduspider", "duckduckbot", "applebot", "slurp",
    "seznambot", "petalbot", "qwantify", "qwantbot", "mojeekbot", "ia_archiver",
    "archive.org_bot", "ahrefsbot", "semrushbot", "mj12bot", "dotbot", "dataforseobot", "blexbot",
    # Previews of links.
    "facebookexternalhit", "facebookcatalog", "twitterbot", "linkedinbot", "slackbot",
    "slack-imgproxy", "discordbot", "telegrambot", "whatsapp/", "skypeuripreview", "pinterestbot",
    "redditbot", "embedly", "iframely", "mastodon/", "bluesky cardyb", "vkshare", "bitlybot",
    # Monitoring.
    "uptimerobot", "pingdom", "statuscake", "site24x7", "better uptime", "betteruptime",
    "datadogsynthetics", "newrelicpinger", "googlestackdrivermonitoring", "google-cloud-scheduler",
    "checkly", "hetrixtools", "freshping", "updown.io", "chrome-lighthouse", "gtmetrix",
    # AI.
    "gptbot", "chatgpt-user", "oai-searchbot", "claudebot", "claude-user", "claude-searchbot",
    "claude-web", "anthropic-ai", "perplexitybot", "perplexity-user", "ccbot", "bytespider",
    "amazonbot", "meta-externalagent", "meta-externalfetcher", "facebookbot", "cohere-ai",
    "diffbot", "mistralai-user", "youbot", "duckassistbot", "timpibot", "ai2bot", "omgili",
    # How the rest introduces itself: a name ending in bot, or the address of a page about it.
    "crawler", "spider", "headlesschrome", "+http://", "+https://",
)  # fmt: skip
_GENERIC_BOT = r"bot/v?[0-9]|^[a-z-]*bot$"  # not any `bot`: Cubot makes telephones

TELEVISIONS = ("smart-tv", "smarttv", "googletv", "android tv", "bravia", "crkey")
TABLETS = ("ipad", "tablet", "kindle", "playbook", "silk/")
MOBILES = ("mobi", "iphone", "ipod", "windows phone", "opera mini", "blackberry", "symbian")


def _any_of(tokens: Iterable[str], *patterns: str) -> Callable[[bytes], bool]:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    search = re2.compile("|".join([*map(re2.escape, tokens), *patterns]).encode(), options).search
    return lambda text: search(text) is not None


_is_bot = _any_of(BOTS, _GENERIC_BOT)
_is_television = _any_of(TELEVISIONS)
_is_tablet = _any_of(TABLETS)
_is_mobile = _any_of(MOBILES)


def device_of(headers: Headers) -> Device:
    """The class of the client that sent these header fields; of a repeated one the last counts."""
    agent = hint = b""
    for name, value in headers.pick(_TELLING):
        if name == b"user-agent":
            agent = value
        else:
            hint = value
    return classify(agent[:MAX_LENGTH], hint == b"?1")


_TELLING = frozenset((b"user-agent", b"sec-ch-ua-mobile"))


@functools.lru_cache(maxsize=CACHE_SIZE)
def classify(agent: bytes, says_mobile: bool = False) -> Device:
    """The first rule that holds decides.

    1. bot: a token of a known bot, or a name that ends in `bot`.
    2. desktop: a television.
    3. tablet: iPad, Tablet, Kindle, PlayBook, Silk; or Android without `Mobile`, as Google asks.
    4. mobile: `Sec-CH-UA-Mobile: ?1`, or a token such as `Mobi`, as Mozilla asks.
    5. desktop: everything else, also a client that says nothing.
    """
    lower = agent.lower()
    if _is_bot(lower):
        return "bot"
    if _is_television(lower):
        return "desktop"
    is_mobile = says_mobile or _is_mobile(lower)
    if _is_tablet(lower) or (b"android" in lower and not is_mobile):
        return "tablet"
    return "mobile" if is_mobile else "desktop"
