"""All that a plugin may import. Nothing here changes without a line in the changelog."""

from edgeproxy.caching.tiers import StoredResponse, Tier
from edgeproxy.errors import ClientError, PluginError, UpstreamError
from edgeproxy.hooks import hookimpl
from edgeproxy.http import (
    Address,
    Body,
    BodyTooLarge,
    Exchange,
    Fact,
    Facts,
    Headers,
    Origin,
    Request,
    Response,
    Target,
    decoded_path,
    fill,
    normalise_path,
)
from edgeproxy.plugin import (
    Config,
    Duration,
    FieldName,
    Filter,
    Matcher,
    Name,
    OneOrMany,
    OriginName,
    Plugin,
    PolicyView,
    Secret,
    Size,
    Template,
)

__all__ = [
    "Address", "Body", "BodyTooLarge", "ClientError", "Config", "Duration", "Exchange", "Fact",
    "Facts", "FieldName", "Filter", "Headers", "Matcher", "Name", "OneOrMany", "Origin",
    "OriginName", "Plugin", "PluginError", "PolicyView", "Request", "Response", "Secret", "Size",
    "StoredResponse", "Target", "Template", "Tier", "UpstreamError", "decoded_path", "fill", "hookimpl",
    "normalise_path",
]
