-- A request that is passed on again waits a moment: its owner starts again, is replaced, or is being agreed on.
core.register_action("pause", { "http-req" }, function(txn)
  core.msleep(30)
end, 0)

-- In a router's first moments nothing is known of what it serves: who asks waits until it is told, and is then looked up
-- once more, as `txn.meta`. `known` is an entry of the map whose name no path has.
local routes = Map.new(os.getenv("ROUTES"), Map._str)
core.register_action("known", { "http-req" }, function(txn)
  for _ = 1, 500 do
    if routes:lookup("known") then
      txn:set_var("txn.meta", routes:lookup(txn.f:path()) or "")
      return
    end
    core.msleep(10)
  end
end, 0)
