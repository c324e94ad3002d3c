-- A request that is passed on again waits a moment: its owner starts again, is replaced, or is being agreed on.
core.register_action("pause", { "http-req" }, function(txn)
  core.msleep(30)
end, 0)

-- Whose path is no endpoint's. In a router's first moments nothing is known of what it serves: who asks waits until it is
-- told, and is then looked up once more, as `txn.meta`. `known` is an entry of the map whose name no path has.
-- A gRPC call has the path of its method: its metadata, or the first label of its authority, name its endpoint. It goes on
-- as a request to that, with the method as the query.
local routes = Map.new(os.getenv("ROUTES"), Map._str)
core.register_action("unserved", { "http-req" }, function(txn)
  local call = (txn.f:req_hdr("content-type") or ""):sub(1, 16) == "application/grpc"
  if call then
    txn:set_var("txn.grpc", 1)
  end
  for _ = 1, 500 do
    if routes:lookup("known") then
      local path = txn.f:path()
      if call and not routes:lookup(path) then
        local name = txn.f:req_fhdr("x-aks-inference-endpoint") or (txn.f:req_fhdr("host") or ""):match("^[^.:]*")
        local own = routes:lookup("grpc/" .. name)
        if own then
          txn.http:req_set_query(path)
          txn.http:req_set_path(own)
          path = own
        end
      end
      local meta = routes:lookup(path)
      if meta then
        txn:set_var("txn.meta", meta)
      end
      return
    end
    core.msleep(10)
  end
end, 0)

-- A bucket that the endpoint has today. An endpoint that has gone meanwhile has no versions either.
local function draw(txn)
  local path = txn.f:path()
  local buckets = tonumber((routes:lookup(path) or "0"):match("^%d+"))
  local route = buckets > 0 and routes:lookup(path .. "?" .. math.random(0, buckets - 1))
  txn:set_var("txn.route", route or "none")
end
core.register_action("draw", { "http-req" }, draw, 0)

-- Another router sent it here for a version that is not known here: one of the two has not heard yet of what was declared.
-- A client that asked for the version itself gets that one or none; for any other a version of today does as well.
core.register_action("unmet", { "http-req" }, function(txn)
  local named = txn.f:req_fhdr("x-aks-inference-asked")
  local wanted = txn.f:path() .. "?@" .. (txn.f:req_fhdr("x-aks-inference-version") or "")
  for _ = 1, named and 100 or 3 do
    core.msleep(10)
    local route = routes:lookup(wanted)
    if route then
      txn:set_var("txn.route", route)
      return
    end
  end
  if not named then
    draw(txn)
  end
end, 0)
