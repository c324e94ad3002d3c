-- Answers that come before a large body has been read. HAProxy would close the connection with the rest of the body
-- unread, and the system then sends a reset that overtakes the answer: clients that write all before they read would never
-- see it. So the answer goes out first, and what comes after it is read and dropped, within bounds; beyond them the
-- connection is closed.
local MOST_BYTES = 256 * 1024 * 1024
local MOST_SECONDS = tonumber(os.getenv("REFUSED_SECONDS"))

-- Of those whose rest is being dropped: where the client is, and since when. `receive` returns only with 64 KiB or at the
-- end, so who sends a byte now and then is named to the agent, which ends the connection.
local draining = {}

-- To a gRPC call whose endpoint is none.
local NO_CALL = "no such gRPC endpoint: name one in the metadata x-aks-inference-endpoint"

-- Those of full queues, by backend: HAProxy counts only what it denies itself.
local counts = {}

-- Reads on until so many bytes are dropped; whether the body is over.
local function drop(applet, entry, most)
  while entry.dropped < most and core.now().sec - entry.began < MOST_SECONDS do
    local data = applet:receive(65536)
    if data == nil or #data == 0 then
      return true
    end
    entry.dropped = entry.dropped + #data
  end
  return false
end

local function refuse(code, status, reason, message, name, value)
  local text = '{"message": "' .. message .. '"}'
  return function(applet)
    local retry, route = applet:get_var("txn.retry"), applet:get_var("txn.route")
    -- A gRPC call is answered with a head alone, which has another status in the end (`config.py`).
    local call = applet:get_var("txn.grpc") or (route and route:match("^[^|]*|[^|]*|[^|]*|[^|]*|[^|]*|rpc"))
    local client, address = {}, applet.f:src()
    local source = address and address .. ":" .. applet.f:src_port() or "unix"
    local entry = { source = source, began = core.now().sec, dropped = 0 }
    -- Over HTTP/2 an answer that is whole before its request is ends with CANCEL once that is, not with its own end: for
    -- many clients a failure. So what would be read and dropped after it, is before.
    if not call and applet.length <= MOST_BYTES and applet.f:fc_http_major() == 2 then
      draining[client] = entry
      drop(applet, entry, applet.length)
      draining[client] = nil
    end
    applet:set_status(status)
    applet:add_header("content-length", tostring(call and 0 or #text))
    applet:add_header("x-aks-inference-reason", reason)
    if call then
      applet:add_header("content-type", "application/grpc")
      applet:add_header("grpc-status", code)
      applet:add_header("grpc-message", (reason == "not-found" and not route) and NO_CALL or message)
    else
      applet:add_header("content-type", "application/json")
    end
    if name ~= "" then
      applet:add_header(name, value)
    end
    -- Of one that was meant for a version, in the words of HAProxy's own answers.
    if retry then
      local slot, version = route:match("^[^|]*|([^|]*)|[^|]*|[^|]*|([^|]*)")
      counts[slot] = (counts[slot] or 0) + 1
      applet:add_header("retry-after", retry)
      applet:add_header("x-aks-inference-version", version)
    end
    applet:start_response()
    if call then
      -- Over HTTP/2 no answer is overtaken, and its end must come with the head.
      return
    end
    applet:send(text)
    draining[client] = entry
    if drop(applet, entry, MOST_BYTES) then
      draining[client] = nil
      return
    end
    -- HAProxy would drop the rest by itself, without any bound: not read, it waits until the agent ends it.
    while true do
      -- It lives: who was taken for ended is named again.
      draining[client] = entry
      core.msleep(500)
    end
  end
end

core.register_cli({ "show", "refused" }, "show refused : answers to large bodies where the queue was full, and clients whose rest takes too long", function(applet)
  for slot, count in pairs(counts) do
    applet:send(slot .. " " .. count .. "\n")
  end
  local now = core.now().sec
  for client, stream in pairs(draining) do
    if now - stream.began > MOST_SECONDS then
      applet:send("late " .. stream.source .. "\n")
      -- One that was ended from outside never comes back here to say so.
      if now - stream.began > 2 * MOST_SECONDS then
        draining[client] = nil
      end
    end
  end
end)

-- <name>|<code of gRPC>|<status>|<reason>|<message>|<header>|<value>, divided by ~
for entry in os.getenv("REFUSALS"):gmatch("[^~]+") do
  local service, code, status, reason, message, name, value =
    entry:match("^([^|]*)|(%d+)|(%d+)|([^|]*)|([^|]*)|([^|]*)|([^|]*)$")
  core.register_service(service, "http", refuse(code, tonumber(status), reason, message, name, value))
end
