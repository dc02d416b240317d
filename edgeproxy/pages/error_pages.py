"""The small pages that the host itself writes: nginx's, the CDN's, and the default 404."""

from functools import cache
from http import HTTPStatus

# Where nginx words a status line differently from the standard library.
NGINX_PHRASES = {
    405: "Not Allowed",
    416: "Requested Range Not Satisfiable",
    429: "Too Many Requests",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}

DEFAULT_404_ETAG = '"64d39a40-24a3"'  # the ETag of Pages' own page, seen since 2023
DEFAULT_404_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'"
)


@cache
def phrase_of(status: int) -> str:
    if status in NGINX_PHRASES:
        return NGINX_PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


@cache
def nginx_page(status: int) -> bytes:
    """nginx's page for a redirect or an error, to the byte: 162 for 301, 150 for 405."""
    title = f"{status} {phrase_of(status)}"
    lines = (
        "<html>",
        f"<head><title>{title}</title></head>",
        "<body>",
        f"<center><h1>{title}</h1></center>",
        "<hr><center>nginx</center>",
        "</body>",
        "</html>",
        "",
    )
    return "\r\n".join(lines).encode()


@cache
def cdn_page(status: int) -> bytes:
    """A page of the CDN, for when the web server behind it did not answer well."""
    title = f"{status} {phrase_of(status)}"
    return (
        f"<!DOCTYPE html>\n<html><head><title>{title}</title></head>"
        f"<body><h1>Error {title}</h1><p>The cache could not get this page.</p></body></html>\n"
    ).encode()


@cache
def default_404(title: str) -> bytes:
    """The page for a site without a `404.html`, and for a host without a site."""
    return DEFAULT_404.replace("TITLE", title).encode()


PAGE_NOT_FOUND = "Page not found"
SITE_NOT_FOUND = "Site not found"

DEFAULT_404 = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>TITLE</title>
    <style>
      body { margin: 15vh auto 0; max-width: 34rem; padding: 0 1rem; color: #24292f;
             font: 1rem/1.6 system-ui, sans-serif; }
      h1 { font-size: 1.6rem; }
      code { background: #eef0f2; border-radius: 3px; padding: 0 .3em; }
    </style>
  </head>
  <body>
    <h1>404: TITLE</h1>
    <p>There is nothing at this address. If this is your site, check that</p>
    <ul>
      <li>the address has the same upper and lower case letters as the file,</li>
      <li>the file is part of what was published,</li>
      <li>a folder's address has an <code>index.html</code> to show,</li>
      <li>the site is published under this host name and base path.</li>
    </ul>
    <p>A file named <code>404.html</code> at the top of the site replaces this page.</p>
  </body>
</html>
"""
