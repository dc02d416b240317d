"""The content type of a file, by its ending, and whether Pages compresses it.

Source: mime-db and its `compressible` flag, which Pages documents as its table.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContentType:
    value: str  # as sent, with charset where Pages sends one
    compressible: bool


# Types outside text/* that are sent with a charset.
WITH_CHARSET = {"application/javascript", "application/json", "application/manifest+json"}

COMPRESSIBLE = {
    "text/html": "html htm shtml",
    "text/css": "css",
    "application/javascript": "js mjs",
    "application/json": "json map",
    "application/manifest+json": "webmanifest",
    "application/ld+json": "jsonld",
    "application/geo+json": "geojson",
    "application/xml": "xml xsl xsd rng",
    "application/rss+xml": "rss",
    "application/atom+xml": "atom",
    "application/xhtml+xml": "xhtml xht",
    "application/toml": "toml",
    "application/wasm": "wasm",
    "application/rtf": "rtf",
    "application/x-tar": "tar",
    "application/vnd.ms-fontobject": "eot",
    "application/octet-stream": "bin exe dll iso img dmg deb",
    "text/plain": "txt text conf def list log in ini",
    "text/markdown": "md markdown",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "text/calendar": "ics ifb",
    "text/vcard": "vcard",
    "text/vtt": "vtt",
    "text/yaml": "yaml yml",
    "image/svg+xml": "svg",
    "image/vnd.microsoft.icon": "ico",
    "image/bmp": "bmp",
    "font/ttf": "ttf",
    "font/otf": "otf",
    "font/collection": "ttc",
    "model/gltf-binary": "glb",
    "model/gltf+json": "gltf",
}

ALREADY_COMPACT = {
    "image/png": "png",
    "image/apng": "apng",
    "image/jpeg": "jpg jpeg jpe",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/jxl": "jxl",
    "image/tiff": "tif tiff",
    "font/woff": "woff",
    "font/woff2": "woff2",
    "application/pdf": "pdf",
    "application/zip": "zip",
    "application/gzip": "gz",
    "application/x-bzip2": "bz2",
    "application/x-7z-compressed": "7z",
    "application/epub+zip": "epub",
    "application/java-archive": "jar war",
    "application/vnd.android.package-archive": "apk",
    "video/mp4": "mp4 mp4v mpg4",
    "video/webm": "webm",
    "video/ogg": "ogv",
    "video/quicktime": "mov qt",
    "audio/mpeg": "mp3 mpga",
    "audio/mp4": "m4a mp4a",
    "audio/ogg": "ogg oga opus",
    "audio/wav": "wav",
    "audio/x-flac": "flac",
}


def _table() -> dict[str, ContentType]:
    table = {}
    for types, compressible in ((COMPRESSIBLE, True), (ALREADY_COMPACT, False)):
        for media_type, endings in types.items():
            has_charset = media_type.startswith("text/") or media_type in WITH_CHARSET
            value = f"{media_type}; charset=utf-8" if has_charset else media_type
            table.update(dict.fromkeys(endings.split(), ContentType(value, compressible)))
    return table


BY_ENDING = _table()
UNKNOWN = ContentType("application/octet-stream", compressible=True)


def content_type_of(path: str) -> ContentType:
    """The type of the file at `path`; no ending or an unknown one is application/octet-stream."""
    _, dot, ending = path.rpartition("/")[2].rpartition(".")
    return BY_ENDING.get(ending.lower(), UNKNOWN) if dot else UNKNOWN
