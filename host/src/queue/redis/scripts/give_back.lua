-- Puts a job that was moved to a pod's list and not claimed back to the front of the queue.
--
-- KEYS  1 job  2 queue  3 claimed
-- ARGV  1 id  2 the status of a job that waits  3 '1': one that does not wait leaves the list too  4 end of the fences of the list's life
-- Returns 1 if it waits again, 0 if it was not there or is not waiting, -1 if the life runs it: its list is what tells others of it.
local job = redis.call('HMGET', KEYS[1], 'status', 'fence')
local waits = job[1] == ARGV[2]
if not waits and job[2] and string.sub(job[2], -#ARGV[4]) == ARGV[4] then return -1 end
if not waits and ARGV[3] ~= '1' then return 0 end
if redis.call('LREM', KEYS[3], 0, ARGV[1]) == 0 or not waits then return 0 end
redis.call('LREM', KEYS[2], 0, ARGV[1])
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
