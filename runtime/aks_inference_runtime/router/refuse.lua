-- Answers that come before a large body has been read. HAProxy would close the connection with the rest of the body
-- unread, and the system then sends a reset that overtakes the answer: clients that write all before they read would never
-- see it. So the answer goes out first, and what comes after it is read and dropped, within bounds; beyond them the
-- connection is closed.
local MOST_BYTES = 256 * 1024 * 1024
local MOST_SECONDS = tonumber(os.getenv("REFUSED_SECONDS"))

-- Of those whose rest is being dropped: where the client is, and since when. `receive` returns only with 64 KiB or at the
-- end, so who sends a byte now and then is named to the agent, which ends the connection.
local draining = {}

-- Those of full queues, by backend: HAProxy counts only what it denies itself.
local counts = {}

local function refuse(status, reason, message, name, value)
  local text = '{"message": "' .. message .. '"}'
  return function(applet)
    applet:set_status(status)
    applet:add_header("content-type", "application/json")
    applet:add_header("content-length", tostring(#text))
    applet:add_header("x-aks-inference-reason", reason)
    if name ~= "" then
      applet:add_header(name, value)
    end
    -- Of one that was meant for a version, in the words of HAProxy's own answers.
    local retry, route = applet:get_var("txn.retry"), applet:get_var("txn.route")
    if retry then
      local slot, version = route:match("^[^|]*|([^|]*)|[^|]*|[^|]*|([^|]*)")
      counts[slot] = (counts[slot] or 0) + 1
      applet:add_header("retry-after", retry)
      applet:add_header("x-aks-inference-version", version)
    end
    applet:start_response()
    applet:send(text)
    local began, dropped = core.now().sec, 0
    local client, address = {}, applet.f:src()
    local entry = { source = address and address .. ":" .. applet.f:src_port() or "unix", began = began }
    draining[client] = entry
    while dropped < MOST_BYTES and core.now().sec - began < MOST_SECONDS do
      local data = applet:receive(65536)
      if data == nil or #data == 0 then
        draining[client] = nil
        return
      end
      dropped = dropped + #data
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

-- <name>|<status>|<reason>|<message>|<header>|<value>, divided by ~
for entry in os.getenv("REFUSALS"):gmatch("[^~]+") do
  local service, status, reason, message, name, value =
    entry:match("^([^|]*)|(%d+)|([^|]*)|([^|]*)|([^|]*)|([^|]*)$")
  core.register_service(service, "http", refuse(tonumber(status), reason, message, name, value))
end
