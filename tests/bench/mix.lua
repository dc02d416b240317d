-- What wrk sends: the requests of a file in turn, parted by NUL. In each of them \1 becomes an
-- address and \2 a number that no request before had; see Stream in mix.py, which does the same.
-- wrk ... URL -- FILE-OF-REQUESTS FILE-OF-NETWORKS NUMBER-OF-THE-FIRST

local requests, networks, number = {}, {}, 0

local function lines(path, pattern)
  local file, found = assert(io.open(path, "rb")), {}
  for one in file:read("*a"):gmatch(pattern) do found[#found + 1] = one end
  file:close()
  return found
end

function init(args)
  requests, networks = lines(args[1], "%Z+"), lines(args[2], "[^\n]+")
  number = tonumber(args[3]) - 1
end

function request()
  number = number + 1
  local raw = requests[number % #requests + 1]
  if not raw:find("[\1\2]") then return raw end
  local host = math.floor(number / #networks) % 65536
  local address = networks[number % #networks + 1]
    .. "." .. math.floor(host / 256) .. "." .. host % 256
  return (raw:gsub("[\1\2]", { ["\1"] = address, ["\2"] = string.format("%d", number) }))
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
