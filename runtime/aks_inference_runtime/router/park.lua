-- Each slot's last server, `park`, has one place; a task here holds it for ever. So a slot without a ready replica has a
-- usable server that is never free, and HAProxy keeps its requests in the queue, in order, until their deadline, in
-- place of answering 503 at once. The tasks live in HAProxy: the slots stay parked when the agent is away.
local count = tonumber(os.getenv("PARK_COUNT"))
local address = os.getenv("PARK_SOCKET")

local function hold(number)
  while true do
    local socket = core.tcp()
    socket:settimeout(2000000)
    if socket:connect(address) then
      socket:send("GET / HTTP/1.1\r\nhost: park\r\nx-slot: s" .. number .. "\r\n\r\n")
      socket:receive("*l")
    end
    socket:close()
    core.msleep(20)
  end
end

for number = 0, count - 1 do
  core.register_task(hold, number)
end

-- What was sent to the slot has not taken its place yet: only the server's own count tells. One task looks, at each slot
-- until it is taken: asking costs, and who waits for it may be hundreds, whose asking would leave no time for the parking.
local parked = false
core.register_task(function()
  for number = 0, count - 1 do
    local park = core.backends["s" .. number].servers["park"]
    while park:get_stats()["scur"] < 1 do
      core.msleep(1)
    end
  end
  core.backends["parked"].servers["all"]:set_ready()
  parked = true
end)

-- In the first milliseconds of the process requests wait here until every slot is parked: one that got the place of
-- `park` would never be answered.
core.register_action("parked", { "http-req" }, function(txn)
  while not parked do
    core.msleep(10)
  end
end, 0)
