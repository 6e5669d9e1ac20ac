-- Moves the next job to the pod's own list, unless nothing waits, and returns what is needed to claim it.
--
-- KEYS  1 schema  2 queue  3 claimed  4 pods   ARGV  1 beginning of the keys of jobs  2 id of a job that was moved already ('' none)
--                                                    3 the pod's life  4 ms that its lease must last: else its jobs would be taken back
-- Returns {word, id, record, version}: 'ok', 'none', 'late', 'emptied', 'missing'.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'emptied'} end
local time = redis.call('TIME')
local lease = tonumber(redis.call('ZSCORE', KEYS[4], ARGV[3]) or '0')
if lease - ARGV[4] <= time[1] * 1000 + math.floor(time[2] / 1000) then
  if ARGV[2] ~= '' and redis.call('LREM', KEYS[3], 0, ARGV[2]) > 0 then redis.call('LPUSH', KEYS[2], ARGV[2]) end
  return {'late'}
end
local id = ARGV[2]
if id == '' then id = redis.call('LMOVE', KEYS[2], KEYS[3], 'LEFT', 'RIGHT') end
if not id then return {'none'} end
local job = redis.call('HMGET', ARGV[1] .. id, 'record', 'version')
if not job[1] then
  redis.call('LREM', KEYS[3], 0, id)
  return {'missing', id}
end
return {'ok', id, job[1], tonumber(job[2])}
