-- Asks the agent about a token that is not in the map. Good ones get there, so that this is rare.
local address = os.getenv("VERIFY_SOCKET")

core.register_action("verify", { "http-req" }, function(txn)
  local token = txn.sf:http_auth_bearer()
  if token == nil or token == "" or token:find("%s") then
    return
  end
  local socket = core.tcp()
  socket:settimeout(10)
  if socket:connect(address) then
    socket:send(txn:get_var("txn.meta") .. " " .. txn.sf:path() .. " " .. token .. "\n")
    if socket:receive("*l") == "ok" then
      txn:set_var("txn.good", 1)
    end
  end
  socket:close()
end, 0)
