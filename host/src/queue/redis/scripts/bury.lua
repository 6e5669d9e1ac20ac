-- Forgets a pod whose jobs are all taken care of.
--
-- KEYS  1 pods  2 facts  3 claimed  4 busy  5 floor          ARGV  1 the pod's life
-- Returns 1, or 0 while jobs are still on its list or it lives.
if redis.call('LLEN', KEYS[3]) > 0 then return 0 end
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0') > 0 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
local floor = 0
for _, ordinal in ipairs(redis.call('HVALS', KEYS[4])) do floor = math.max(floor, tonumber(ordinal) + 1) end
if floor == 0 then redis.call('DEL', KEYS[5])
elseif redis.call('LLEN', KEYS[5]) > floor then redis.call('LTRIM', KEYS[5], 0, floor - 1) end
return 1
