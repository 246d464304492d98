-- Is the number `a` above `b`? Both are texts of digits: Lua's own numbers would round offsets beyond 2^53.
local function above(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

