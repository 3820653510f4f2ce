import USAEKernelTypes

// A key orders elements as TopK must: by value, largest first, then by column, lowest first. The bits of a positive float
// grow with its value, so `bits << 32 | ~column` compares in one instruction and ties can never be broken differently.

func scan(_ row: ConstantFloats, _ columns: Int, _ threshold: Float, _ keys: UnsafeMutablePointer<UInt64>) -> Int {
  let limit = Vector(repeating: threshold)
  var count = 0
  var column = 0
  while column < columns {
    if any(load(row, column) .> limit) {
      for c in column..<column &+ 16 {
        // Write always, keep if above: a branch here would be mispredicted half of the time.
        keys[count] = UInt64(row[c].bitPattern) << 32 | UInt64(~UInt32(truncatingIfNeeded: c))
        count &+= row[c] > threshold ? 1 : 0
      }
    }
    column &+= 16
  }
  return count
}

func partition(_ keys: UnsafeMutablePointer<UInt64>, _ count: Int, _ wanted: Int) {
  if wanted <= 0 || wanted >= count { return }
  var low = 0
  var high = count &- 1
  while low < high {
    let pivot = keys[(low &+ high) / 2]
    var left = low
    var right = high
    while left <= right {
      while keys[left] > pivot { left &+= 1 }
      while keys[right] < pivot { right &-= 1 }
      if left <= right {
        let held = keys[left]
        keys[left] = keys[right]
        keys[right] = held
        left &+= 1
        right &-= 1
      }
    }
    if wanted &- 1 <= right {
      high = right
    } else if wanted &- 1 >= left {
      low = left
    } else {
      return
    }
  }
}

/// Heap sort: in place, no recursion, and as fast as any for the few dozen keys of a code.
func sortDescending(_ keys: UnsafeMutablePointer<UInt64>, _ count: Int) {
  if count < 2 { return }
  var start = count / 2
  while start > 0 {
    start &-= 1
    siftDown(keys, start, count)
  }
  var end = count &- 1
  while end > 0 {
    let smallest = keys[0]
    keys[0] = keys[end]
    keys[end] = smallest
    siftDown(keys, 0, end)
    end &-= 1
  }
}

/// Restores "parent <= children" below `start`: the smallest key is on top, and sorting moves it to the end.
@inline(__always)
private func siftDown(_ keys: UnsafeMutablePointer<UInt64>, _ start: Int, _ count: Int) {
  let moving = keys[start]
  var hole = start
  while true {
    var child = 2 &* hole &+ 1
    if child >= count { break }
    if child &+ 1 < count && keys[child &+ 1] < keys[child] { child &+= 1 }
    if keys[child] >= moving { break }
    keys[hole] = keys[child]
    hole = child
  }
  keys[hole] = moving
}
