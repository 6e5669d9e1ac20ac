-- Forgets a job that did not change since it was looked at.
--
-- KEYS  1 job  2 index  3 due  4 outstanding  5 events  6 session          ARGV  1 id  2 version
-- Returns 1 to the one caller that did it.
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1], KEYS[5])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('SREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
return 1
