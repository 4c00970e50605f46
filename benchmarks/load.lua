-- Sends requests in turn: the first argument is a number of browsers, which wrk runs as threads, and
-- the others are files with one request each, the same number for each browser. Says at the end, as
-- one line of JSON, how many were answered and what went wrong.

local texts, turn, threads = {}, 0, 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  local each = (#args - 1) / tonumber(args[1])
  for place = 1, each do
    local file = assert(io.open(args[1 + number * each + place], "rb"))
    texts[place] = file:read("*a")
    file:close()
  end
  if #texts == 1 then
    -- One text is handed over once, by the function that wrk calls when there is no request().
    wrk.format = function() return texts[1] end
    return
  end
  function request()
    turn = turn % #texts + 1
    return texts[turn]
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
    summary.requests, errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
