-- Gives a lock up, or renews it, if it is still the caller's.
--
-- KEYS  1 lock          ARGV  1 token  2 new time to live, ms; 0: give it up
-- Returns 1 if it was the caller's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
