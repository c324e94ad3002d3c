-- Each slot's last server, `park`, has one place; a task here holds it for ever. So a slot without a ready replica has a
-- usable server that is never free, and HAProxy keeps its requests in the queue, in order, until their deadline, in
-- place of answering 503 at once. The tasks live in HAProxy: the slots stay parked when the agent is away.
local count = tonumber(os.getenv("PARK_COUNT"))
local address = os.getenv("PARK_SOCKET")
local held = 0

local function hold(number)
  while true do
    local socket = core.tcp()
    socket:settimeout(2000000)
    if socket:connect(address) then
      socket:send("GET / HTTP/1.1\r\nhost: park\r\nx-slot: s" .. number .. "\r\n\r\n")
      held = held + 1
      socket:receive("*l")
      held = held - 1
    end
    socket:close()
    core.msleep(20)
  end
end

for number = 0, count - 1 do
  core.register_task(hold, number)
end

-- In the first milliseconds of the process requests wait here until every slot is parked.
core.register_action("parked", { "http-req" }, function(txn)
  while held < count do
    core.msleep(1)
  end
  core.backends["parked"].servers["all"]:set_ready()
end, 0)
