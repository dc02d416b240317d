vcl 4.1;

# Varnish comes without a reader for country databases, so everybody is from "XX". Nor has it a hash
# for addresses: new visitors are divided by chance, and the cookie keeps them where they are.
import std;

backend default { .host = "@ORIGIN_HOST@"; .port = "@ORIGIN_PORT@"; }

sub vcl_recv {
  unset req.http.X-New;
  if (req.http.Cookie ~ "(^|; )exp=a(;|$)") { set req.http.X-Variant = "a"; }
  elsif (req.http.Cookie ~ "(^|; )exp=b(;|$)") { set req.http.X-Variant = "b"; }
  else {
    set req.http.X-New = "1";
    if (std.random(0, 1) < 0.5) { set req.http.X-Variant = "a"; }
    else { set req.http.X-Variant = "b"; }
  }
  if (req.http.X-Variant == "b") { set req.url = "/world/b" + req.url; }
  else { set req.url = "/world" + req.url; }
  unset req.http.Cookie;
}

sub vcl_backend_response { set beresp.ttl = 1h; }

sub vcl_deliver {
  if (req.http.X-New) {
    set resp.http.Set-Cookie =
      "exp=" + req.http.X-Variant + "; Path=/; Max-Age=7776000; SameSite=Lax; HttpOnly";
  }
  set resp.http.X-Country = "XX";
  set resp.http.X-Variant = req.http.X-Variant;
  set resp.http.Strict-Transport-Security = "max-age=63072000";
  set resp.http.X-Frame-Options = "DENY";
  unset resp.http.X-GitHub-Request-Id;
}
