-- One change of one job: compares, then sets. It compares versions, fences and names of changes, and knows no states.
--
-- KEYS  1 schema   2 job   3 queue   4 index   5 due   6 outstanding   7 events   8 changes   9 claimed  10 busy  11 floor  12 session
--      13 key of the submission
-- ARGV  1 id                     2 name of the change, ending in its number ('' none)   3 expected version ('new', '*' or a number)
--       4 expected fence ('' any) 5 record ('' unchanged)            6 status ('' it waits)  7 fence after ('' none)
--       8 place in the queue ('', 'back', 'front', 'out')            9 on the pod's list ('', 'out')
--      10 due, ms ('' never, '-' as before) 11 score in the index              12 seconds until the keys expire ('' never)
--      13 pod's life             14 ordinal ('' none)               15 kind of change  16 outstanding ('', 'in', 'out')
--      17 events to keep         18 '1': index the session          19 job and request of the submission's key ('' none)
--      20 seconds that key counts 21 beginning of the keys of jobs   22.. events without their numbers
-- Returns {word, last event}: 'ok', 'done' (made before), 'emptied', 'exists', 'missing', 'fence', 'version',
-- 'used' (the key of the submission is another job's).
--
-- A new job has one event, which follows from its record and is not stored: a stream takes four kilobytes for its first entry. The change
-- that follows brings it along.
local is_new = ARGV[3] == 'new'
local now = redis.call('HMGET', KEYS[2], 'version', 'seq', 'fence', 'change')
local version, seq = tonumber(now[1] or '0'), tonumber(now[2] or '0')
-- A job that is there was put back, if the store was emptied.
if not now[1] then
  if redis.call('EXISTS', KEYS[1]) == 0 then return {'emptied', 0} end
  if not is_new then return {'missing', 0} end
end
-- Whoever names its changes numbers them and makes them in this order, so that the last one tells of all before it.
local function made_before(name, last)
  local whose, number = string.match(name, '^(.*/)(%d+)$')
  if not whose or not last or string.sub(last, 1, #whose) ~= whose then return false end
  return tonumber(number) <= (tonumber(string.sub(last, #whose + 1)) or -1)
end
if is_new then
  if now[1] then return {'exists', seq} end
  if ARGV[19] ~= '' then
    local used = redis.call('GET', KEYS[13])
    if used and redis.call('EXISTS', ARGV[21] .. string.sub(used, 1, 36)) == 1 then return {'used', 0} end
    redis.call('SET', KEYS[13], ARGV[19], 'EX', ARGV[20])
  end
else
  if made_before(ARGV[2], now[4]) then return {'done', seq} end
  if ARGV[4] ~= '' and now[3] ~= ARGV[4] then return {'fence', seq} end
  if ARGV[3] ~= '*' and version ~= tonumber(ARGV[3]) then return {'version', seq} end
  -- A claim (it alone has a life that the job does not leave) counts while the job is on the list of whoever makes it: a pod that was
  -- thought dead may wake up long after its jobs were put back.
  if ARGV[13] ~= '-' and ARGV[9] == '' and not redis.call('LPOS', KEYS[9], ARGV[1]) then return {'fence', seq} end
end
-- The fields of an entry are the numbers of its events, and its id is that of the last: what is asked for from a number on begins with
-- the entry that holds it.
local set = {}
local function put(field, value) set[#set + 1] = field; set[#set + 1] = value end
if is_new then
  seq = 1
elseif #ARGV >= 22 then
  for i = 22, #ARGV, 16 do
    local entry = {}
    for n = i, math.min(i + 15, #ARGV) do
      seq = seq + 1
      entry[#entry + 1] = seq; entry[#entry + 1] = ARGV[n]
    end
    redis.call('XADD', KEYS[7], 'MINID', '~', math.max(seq - ARGV[17], 0), seq .. '-0', unpack(entry))
  end
  put('seq', seq)
end
-- A change without a name leaves the last name: its maker may still ask whether it was made.
if ARGV[2] ~= '' then put('change', ARGV[2]) end
if ARGV[5] ~= '' then
  put('record', ARGV[5]); put('version', version + 1)
  -- Jobs that wait are many, and each field of theirs costs memory.
  if ARGV[6] ~= '' or now[3] then put('status', ARGV[6]) end
  if ARGV[7] ~= '' or now[3] then put('fence', ARGV[7]) end
  if is_new then redis.call('ZADD', KEYS[4], ARGV[11], ARGV[1]) end
  if ARGV[10] == '' then redis.call('ZREM', KEYS[5], ARGV[1])
  elseif ARGV[10] ~= '-' then redis.call('ZADD', KEYS[5], ARGV[10], ARGV[1]) end
  if ARGV[18] == '1' then redis.call('ZADD', KEYS[12], ARGV[11], ARGV[1]) end
end
redis.call('HSET', KEYS[2], unpack(set))
if ARGV[8] == 'back' then redis.call('RPUSH', KEYS[3], ARGV[1])
elseif ARGV[8] == 'front' then redis.call('LPUSH', KEYS[3], ARGV[1])
elseif ARGV[8] == 'out' then redis.call('LREM', KEYS[3], 1, ARGV[1]) end
if ARGV[16] == 'in' then redis.call('SADD', KEYS[6], ARGV[1])
elseif ARGV[16] == 'out' then redis.call('SREM', KEYS[6], ARGV[1]) end
if ARGV[9] == 'out' then redis.call('LREM', KEYS[9], 0, ARGV[1]) end
if ARGV[14] ~= '' then
  -- The floor holds one element for each ordinal up to the highest busy one: an autoscaler that follows its length never
  -- removes a pod that works.
  local changed = 0
  if ARGV[9] == '' then changed = redis.call('HSET', KEYS[10], ARGV[13], ARGV[14])
  elseif redis.call('LLEN', KEYS[9]) == 0 then changed = redis.call('HDEL', KEYS[10], ARGV[13]) end
  if changed > 0 then
    local floor = 0
    for _, ordinal in ipairs(redis.call('HVALS', KEYS[10])) do floor = math.max(floor, tonumber(ordinal) + 1) end
    local length = redis.call('LLEN', KEYS[11])
    while length < floor do length = redis.call('RPUSH', KEYS[11], length) end
    if length > floor then
      if floor == 0 then redis.call('DEL', KEYS[11]) else redis.call('LTRIM', KEYS[11], 0, floor - 1) end
    end
  end
end
if ARGV[12] ~= '' then
  redis.call('EXPIRE', KEYS[2], ARGV[12])
  redis.call('EXPIRE', KEYS[7], ARGV[12])
  if ARGV[18] == '1' then redis.call('EXPIRE', KEYS[12], ARGV[12]) end
end
redis.call('XADD', KEYS[8], 'MAXLEN', '~', 10000, '*', 'c', ARGV[1] .. ' ' .. seq .. ' ' .. ARGV[15])
return {'ok', seq}
