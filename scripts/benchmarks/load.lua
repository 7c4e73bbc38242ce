-- Makes wrk send the requests of a file in turn, one a line: its headers and its body, separated by tabs.
-- wrk … URL -- FILE METHOD [refresh]: with `refresh`, the token in a response replaces that of a request to come.
local requests, turn, filled = {}, 0, 0

local function refill(status, headers, body)
  local token = body:match('"refresh_token":%s*"([^"]+)"')
  if status == 200 and token then
    filled = filled % #requests + 1
    requests[filled] = wrk.format(nil, nil, form, "grant_type=refresh_token&refresh_token=" .. token)
  end
end

function init(arguments)
  wrk.method = arguments[2]
  form = {["Content-Type"] = "application/x-www-form-urlencoded"}
  for line in io.lines(arguments[1]) do
    local headers, body = {}, nil
    for field in line:gmatch("[^\t]+") do
      local name, value = field:match("^([%w-]+): (.+)$")
      if name then headers[name] = value else body = field end
    end
    requests[#requests + 1] = wrk.format(nil, nil, headers, body)
  end
  if arguments[3] == "refresh" then response = refill end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

-- One line of JSON, with times in microseconds.
function done(summary, latency)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.timeout + e.status
  print(string.format('RESULT {"requests": %d, "duration": %d, "p50": %d, "p99": %d, "errors": %d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors))
end
