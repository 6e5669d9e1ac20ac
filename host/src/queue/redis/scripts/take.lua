-- Moves the next job to the pod's own list, unless nothing waits, and returns what is needed to claim it.
--
-- KEYS  1 schema  2 queue  3 claimed          ARGV  1 beginning of the keys of jobs  2 id of a job that was moved already ('' none)
-- Returns {word, id, record, version}: 'ok', 'none', 'emptied', 'missing'.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'emptied'} end
local id = ARGV[2]
if id == '' then id = redis.call('LMOVE', KEYS[2], KEYS[3], 'LEFT', 'RIGHT') end
if not id then return {'none'} end
local job = redis.call('HMGET', ARGV[1] .. id, 'record', 'version')
if not job[1] then
  redis.call('LREM', KEYS[3], 0, id)
  return {'missing', id}
end
return {'ok', id, job[1], tonumber(job[2])}
