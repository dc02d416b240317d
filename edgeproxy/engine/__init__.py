"""How bytes get in and out: the strict HTTP/1.1 front and the mitmproxy core."""
