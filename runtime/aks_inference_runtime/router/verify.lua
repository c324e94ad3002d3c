-- Asks the agent about a token that is not in the map. Good ones get there, so that this is rare.
local address = os.getenv("VERIFY_SOCKET")

core.register_action("verify", { "http-req" }, function(txn)
  local token = txn.sf:http_auth_bearer()
  if token == nil or token == "" or token:find("%s") then
    return
  end
  local socket = core.tcp()
  socket:settimeout(10)
  local told
  if socket:connect(address) then
    socket:send(txn:get_var("txn.meta") .. " " .. txn.sf:path() .. " " .. token .. "\n")
    told = socket:receive("*l")
  end
  if told == "ok" then
    txn:set_var("txn.good", 1)
  elseif told ~= "no" then
    -- The issuer's keys cannot be read, or the agent is away.
    txn:set_var("txn.later", 1)
  end
  socket:close()
end, 0)
