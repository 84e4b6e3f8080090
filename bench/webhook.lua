-- wrk: each request is another Grab of the same size, under a download id of its own.
local body, head, tail, counter

local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("thread_id", threads)
end

function init(args)
  local file = io.open(args[1], "r")
  body = file:read("*a")
  file:close()
  local from, to = body:find("3F2504E04F8911D39A0C0305E82C3301A1B2C3D4", 1, true)
  head, tail = body:sub(1, from - 1), body:sub(to + 1)
  counter = 0
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["X-Webhook-Secret"] = args[2]
  salt = args[3]
end

function request()
  counter = counter + 1
  local id = string.format("%s%04X%012X", salt, thread_id, counter)
  return wrk.format(nil, nil, nil, head .. id .. tail)
end

function done(summary, latency, requests)
  io.write(string.format('{"requests":%d,"seconds":%f,"errors":%d,"p50_ms":%f,"p99_ms":%f}\n',
    summary.requests, summary.duration / 1e6,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
