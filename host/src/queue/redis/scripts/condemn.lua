-- Decides, once and for all, that a pod's lease is over, so that its jobs can be taken back: its next renewal is told so.
--
-- KEYS  1 pods          ARGV  1 the pod's life
-- Returns 1 if it is condemned, 0 if its lease is not over.
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not lease then return 1 end
local time = redis.call('TIME')
if tonumber(lease) > time[1] * 1000 + math.floor(time[2] / 1000) then return 0 end
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return 1
