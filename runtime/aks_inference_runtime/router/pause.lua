-- A request that is passed on again waits a moment: its owner starts again, is replaced, or is being agreed on.
core.register_action("pause", { "http-req" }, function(txn)
  core.msleep(30)
end, 0)
