-- Puts a job that was moved to a pod's list and not claimed back to the front of the queue.
--
-- KEYS  1 job  2 queue  3 claimed          ARGV  1 id  2 the status of a job that waits
-- Returns 1 if it waits again, 0 if it was not there or is not waiting.
if redis.call('LREM', KEYS[3], 0, ARGV[1]) == 0 then return 0 end
if redis.call('HGET', KEYS[1], 'status') ~= ARGV[2] then return 0 end
redis.call('LREM', KEYS[2], 0, ARGV[1])
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
