-- Puts a job that was moved to a pod's list and not claimed back to the front of the queue.
--
-- KEYS  1 job  2 queue  3 claimed
-- ARGV  1 id  2 '1': one that does not wait leaves the list too  3 end of the fences of the list's life
-- Returns 1 if it waits again, 0 if it was not there or is not waiting, -1 if the life runs it: its list is what tells others of it.
local job = redis.call('HMGET', KEYS[1], 'version', 'status', 'fence')
local waits = job[1] and (job[2] or '') == ''
if not waits and job[3] and string.sub(job[3], -#ARGV[3]) == ARGV[3] then return -1 end
if not waits and ARGV[2] ~= '1' then return 0 end
if redis.call('LREM', KEYS[3], 0, ARGV[1]) == 0 or not waits then return 0 end
redis.call('LREM', KEYS[2], 0, ARGV[1])
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
