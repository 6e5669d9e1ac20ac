-- Renews a pod's lease on all its jobs, and returns what the pod must know of the others.
--
-- KEYS  1 schema  2 pods  3 facts  4 draining  5 claimed
-- ARGV  1 the pod's life  2 lease, ms  3 what it says of itself  4 '1': it drains  5 seconds that the mark of a drain lasts
-- Returns {word, epoch, jobs on its list, expired lives, {life, facts, ..}}: 'ok', 'new' (it had no lease, or was condemned), 'emptied'.
local epoch = redis.call('GET', KEYS[1])
if not epoch then return {'emptied'} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('ZSCORE', KEYS[2], ARGV[1])
local word = lease and tonumber(lease) > 0 and 'ok' or 'new'
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
if ARGV[4] == '1' then redis.call('SET', KEYS[4], ARGV[1], 'EX', ARGV[5]) else redis.call('DEL', KEYS[4]) end
local expired = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
return {word, epoch, redis.call('LLEN', KEYS[5]), expired, redis.call('HGETALL', KEYS[3])}
