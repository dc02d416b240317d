// The same policy as a worker: a table of countries to search, a Map for a cache.
import ranges from "countries.json";

const EU = new Set(
  "AT AX BE BG CY CZ DE DK EE ES FI FR GF GP GR HR HU IE IT LT LU LV MF MQ MT NL PL PT RE RO SE SI SK YT".split(" "));
const FRESH_MS = 3600e3;
const firsts = Uint32Array.from(ranges.firsts);
const codes = ranges.codes;
const cache = new Map();

function number(address) {
  const [a, b, c, d] = address.split(".");
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
}

function country(address) {
  let low = 0, high = firsts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (firsts[middle] <= address) low = middle + 1; else high = middle;
  }
  return low ? codes[low - 1] : "XX";
}

function bucket(address) {
  const hash = Math.imul(address ^ (address >>> 16), 0x45d9f3b);
  return (hash ^ (hash >>> 16)) & 1 ? "a" : "b";
}

async function fetched(origin, path) {
  const answer = await origin.fetch("http://@ORIGIN@" + path);
  const headers = [...answer.headers].filter(([name]) => name !== "x-github-request-id");
  const body = await answer.arrayBuffer();
  return { status: answer.status, headers, body, etag: answer.headers.get("etag"), until: Date.now() + FRESH_MS };
}

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    const client = number((request.headers.get("x-forwarded-for") || "").split(",").pop().trim());
    const code = country(client);
    const kept = /(?:^|; )exp=([ab])(?:;|$)/.exec(request.headers.get("cookie") || "");
    const variant = kept ? kept[1] : bucket(client);
    const path = (EU.has(code) ? "/eu" : "/world") + (variant === "b" ? "/b" : "") + url.pathname + url.search;
    let stored = cache.get(path);
    if (!stored || stored.until < Date.now()) {
      stored = await fetched(env.ORIGIN, path);
      if (stored.status === 200) cache.set(path, stored);
    }
    const headers = new Headers(stored.headers);
    headers.set("x-country", code);
    headers.set("x-variant", variant);
    headers.set("strict-transport-security", "max-age=63072000");
    headers.set("x-frame-options", "DENY");
    if (!kept) headers.set("set-cookie", `exp=${variant}; Path=/; Max-Age=7776000; SameSite=Lax; HttpOnly`);
    if (request.headers.get("if-none-match") === stored.etag) return new Response(null, { status: 304, headers });
    return new Response(stored.body, { status: stored.status, headers });
  },
};
