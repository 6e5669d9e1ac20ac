-- Puts a job that was moved to a pod's list and not claimed back to the front of the queue.
--
-- KEYS  1 job  2 queue  3 claimed          ARGV  1 id  2 the status of a job that waits  3 '1': one that does not wait leaves the list too
-- Returns 1 if it waits again, 0 if it was not there or is not waiting.
local waits = redis.call('HGET', KEYS[1], 'status') == ARGV[2]
-- The pod may run it, and have lost the answer to its claim: its list is what tells others of it.
if not waits and ARGV[3] ~= '1' then return 0 end
if redis.call('LREM', KEYS[3], 0, ARGV[1]) == 0 or not waits then return 0 end
redis.call('LREM', KEYS[2], 0, ARGV[1])
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
