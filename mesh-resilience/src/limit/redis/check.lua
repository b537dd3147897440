-- Admits or refuses one call by all windows and the bucket of a key, at the server's time.
-- The log of groups, as in `limit.rs`; the bucket is the continuous-state leaky bucket of ITU-T I.371, annex A.
--
-- KEYS[1]  the record of one caller: last, level, then for each window full, partial, ticks
-- ARGV     cost; rate, period, burst of the bucket (0: none); then for each window limit, group, capacity, period, tick
--
-- Times are microseconds. All numbers are whole and below 2^53, so that they are exact.
local cost = tonumber(ARGV[1])
local rate, refill, burst = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local count = (#ARGV - 4) / 5

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local value = redis.call('GET', KEYS[1])
local last, level, at = now, 0, 1
if value then
  last, level, at = struct.unpack('>dd', value)
  -- The clock of a server may be set back; that of a record never is.
  if now < last then now = last end
end

local told = nil
local function tell(limit, remaining, reset, retry)
  if told == nil or retry > told[4] or (retry == told[4] and remaining < told[2]) then
    told = { limit, remaining, reset, retry }
  end
end

local windows = {}
local ttl = 0
for i = 1, count do
  local base = 4 + (i - 1) * 5
  local w = {
    limit = tonumber(ARGV[base + 1]), group = tonumber(ARGV[base + 2]), capacity = tonumber(ARGV[base + 3]),
    full = 0, partial = 0, ticks = '',
  }
  local period, length = tonumber(ARGV[base + 4]), tonumber(ARGV[base + 5])
  local last_age = math.ceil(period / length)
  w.tick = math.floor(now / length)
  if value then
    w.full, w.partial, at = struct.unpack('>HH', value, at)
    w.ticks = string.sub(value, at, at + 2 * w.full - 1)
    at = at + 2 * w.full
  end
  if now - last >= period then
    w.full, w.partial, w.ticks = 0, 0, ''
  end
  local function age(place)
    local high, low = string.byte(w.ticks, 2 * place - 1, 2 * place)
    return (w.tick - (high * 256 + low)) % 65536
  end
  local gone = 0
  while gone < w.full and age(gone + 1) > last_age do gone = gone + 1 end
  if gone > 0 then
    w.ticks = string.sub(w.ticks, 2 * gone + 1)
    w.full = w.full - gone
  end
  local counted = w.full * w.group + w.partial
  local remaining = w.limit - counted
  local free, retry = last + period - now, 0
  if cost > w.limit then
    retry = period
  elseif cost > remaining then
    retry = free
    local groups = math.ceil((cost - remaining) / w.group)
    if groups <= w.full then
      local leaves = (w.tick - math.min(age(groups), last_age) + last_age + 1) * length - now
      retry = math.min(retry, leaves)
    end
  end
  -- What is free again after this call, if it is admitted.
  if retry == 0 and cost > 0 then free = period elseif counted == 0 then free = 0 end
  tell(w.limit, remaining, free, retry)
  ttl = math.max(ttl, period)
  windows[i] = w
end

if burst > 0 then
  level = math.max(0, level - (now - last) * rate)
  local room, wanted = burst * refill - level, cost * refill
  local retry = 0
  if cost > burst then
    retry = math.ceil(burst * refill / rate)
  elseif wanted > room then
    retry = math.ceil((wanted - room) / rate)
  end
  local after = level
  if retry == 0 then after = level + wanted end
  tell(burst, math.floor(room / refill), math.ceil(after / rate), retry)
  level = after
  ttl = math.max(ttl, math.ceil(after / rate))
end

if told[4] > 0 then
  return { 0, told[1], told[2], told[3], told[4] }
end
if cost > 0 then
  local parts = { struct.pack('>dd', now, level) }
  for i = 1, count do
    local w = windows[i]
    w.partial = w.partial + cost
    local added = 0
    while w.partial >= w.group and w.full < w.capacity do
      w.partial = w.partial - w.group
      w.full = w.full + 1
      added = added + 1
    end
    parts[#parts + 1] = struct.pack('>HH', w.full, w.partial)
    parts[#parts + 1] = w.ticks
    parts[#parts + 1] = string.rep(struct.pack('>H', w.tick % 65536), added)
  end
  redis.call('SET', KEYS[1], table.concat(parts), 'PX', math.ceil(ttl / 1000) + 1)
end
return { 1, told[1], told[2] - cost, told[3], 0 }
