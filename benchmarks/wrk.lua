-- Sends the bodies of a file, a line each, one after the other, and says how it went as JSON.
-- wrk ... URL -- BODIES CONTENT_TYPE [AUTHORIZATION]
local requests, next_one = {}, 0

function init(arguments)
  wrk.headers["Content-Type"] = arguments[2]
  if arguments[3] then wrk.headers["Authorization"] = arguments[3] end
  for body in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, nil, body)
  end
end

function request()
  next_one = next_one % #requests + 1
  return requests[next_one]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "worst_ms": %.4f, "refused": %d, "failed": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
