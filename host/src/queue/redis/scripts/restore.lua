-- Puts a job back that Redis lost, from what the job's files say. A job that is there is left alone.
--
-- KEYS  1 lock of the rebuild  2 job  3 queue  4 index  5 due  6 outstanding  7 events  8 claimed  9 pods  10 busy  11 session  12 floor
--       13 key of the submission  14 schema  15 changes
-- ARGV  1 token of the lock    2 id   3 record  4 status ('' it waits)  5 version  6 fence ('' none)  7 last event ('' a new job's, which is not stored)  8 '1': it waits
--       9 the life that runs it ('' none)  10 lease, ms  11 ordinal ('' none)  12 due, ms ('' never)  13 score  14 expiry ('' never)
--      15 '1': it is not over  16 '1': index the session
--      17 job and request of the submission's key ('' none)
--      18 beginning of the keys of jobs, where another job of that key leaves no place for one that never ran ('' it does)
--      19 seconds that the key counts  20 'NX': a lease that the life has stays, 'GT': it is renewed
--      21.. number and text of the events to keep
-- Returns 1 if it was put back, 0 if it was there, -1 without the lock.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
-- In a whole store the key of a submission names the job that was accepted; a second one of that key was written down by a pod that died
-- before it was.
if ARGV[18] ~= '' and redis.call('EXISTS', KEYS[14]) == 1 then
  local used = redis.call('GET', KEYS[13])
  if used and string.sub(used, 1, 36) ~= ARGV[2] and redis.call('EXISTS', ARGV[18] .. string.sub(used, 1, 36)) == 1 then return 0 end
end
redis.call('DEL', KEYS[7])
-- Entries as commit.lua makes them.
if ARGV[7] ~= '' then
  for i = 21, #ARGV, 32 do
    local last = math.min(i + 31, #ARGV)
    redis.call('XADD', KEYS[7], ARGV[last - 1] .. '-0', unpack(ARGV, i, last))
  end
end
redis.call('ZADD', KEYS[4], ARGV[13], ARGV[2])
if ARGV[17] ~= '' then redis.call('SET', KEYS[13], ARGV[17], 'EX', ARGV[19]) end
if ARGV[12] ~= '' then redis.call('ZADD', KEYS[5], ARGV[12], ARGV[2]) end
if ARGV[15] == '1' then redis.call('SADD', KEYS[6], ARGV[2]) end
if ARGV[16] == '1' then redis.call('ZADD', KEYS[11], ARGV[13], ARGV[2]) end
if ARGV[8] == '1' then
  redis.call('LREM', KEYS[3], 0, ARGV[2])
  redis.call('RPUSH', KEYS[3], ARGV[2])
end
if ARGV[9] ~= '' then
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[9], ARGV[20], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[10], ARGV[9])
  redis.call('LREM', KEYS[8], 0, ARGV[2])
  redis.call('RPUSH', KEYS[8], ARGV[2])
  if ARGV[11] ~= '' then
    redis.call('HSET', KEYS[10], ARGV[9], ARGV[11])
    local length = redis.call('LLEN', KEYS[12])
    while length < tonumber(ARGV[11]) + 1 do length = redis.call('RPUSH', KEYS[12], length) end
  end
end
redis.call('HSET', KEYS[2], 'record', ARGV[3], 'version', ARGV[5])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[2], 'status', ARGV[4]) end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[2], 'fence', ARGV[6]) end
if ARGV[7] ~= '' then redis.call('HSET', KEYS[2], 'seq', ARGV[7]) end
if ARGV[14] ~= '' then
  redis.call('EXPIRE', KEYS[2], ARGV[14])
  redis.call('EXPIRE', KEYS[7], ARGV[14])
end
-- Who watches the job may have missed what became of it meanwhile.
local kind = ARGV[8] == '1' and 'queued' or 'status'
redis.call('XADD', KEYS[15], 'MAXLEN', '~', 10000, '*', 'c', ARGV[2] .. ' ' .. (ARGV[7] == '' and 1 or ARGV[7]) .. ' ' .. kind)
return 1
