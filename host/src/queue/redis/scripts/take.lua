-- Moves the next jobs to the pod's own list, unless nothing waits, and returns what is needed to claim them.
--
-- KEYS  1 schema  2 queue  3 claimed  4 pods   ARGV  1 beginning of the keys of jobs  2 id of a job that was moved already ('' none)
--                                                    3 the pod's life  4 ms that its lease must last: else its jobs would be taken back
--                                                    5 how many jobs at the most
-- Returns {word, id, record, version, id, ..}: 'ok' (there may be none), 'late', 'emptied'.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'emptied'} end
local time = redis.call('TIME')
local lease = tonumber(redis.call('ZSCORE', KEYS[4], ARGV[3]) or '0')
if lease - ARGV[4] <= time[1] * 1000 + math.floor(time[2] / 1000) then
  if ARGV[2] ~= '' and redis.call('LREM', KEYS[3], 0, ARGV[2]) > 0 then redis.call('LPUSH', KEYS[2], ARGV[2]) end
  return {'late'}
end
local taken, seen = {'ok'}, {}
local function add(id)
  if seen[id] then return end
  seen[id] = true
  local job = redis.call('HMGET', ARGV[1] .. id, 'record', 'version')
  if not job[1] then
    redis.call('LREM', KEYS[3], 0, id)
    return
  end
  for _, part in ipairs({id, job[1], job[2]}) do taken[#taken + 1] = part end
end
local wanted = tonumber(ARGV[5])
if ARGV[2] ~= '' then
  add(ARGV[2])
  wanted = wanted - 1
end
for _ = 1, wanted do
  local id = redis.call('LMOVE', KEYS[2], KEYS[3], 'LEFT', 'RIGHT')
  if not id then break end
  add(id)
end
return taken
