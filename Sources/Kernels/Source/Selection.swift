import CIntrinsics
import KernelTypes

// A key orders elements as TopK must: by value, largest first, then by column, lowest first. The bits of a positive float
// grow with its value, so `bits << 32 | ~column` compares in one instruction and ties can never be broken differently.

func scan(_ row: ConstantFloats, _ columns: Int, _ threshold: Float, _ keys: UnsafeMutablePointer<UInt64>) -> Int {
  let thresholds = Vector(repeating: threshold)
  var count = 0
  var column = 0
  while column < columns {
    #if USAE_AVX512
      count &+= Int(usae_write_keys(thresholds, load(row, column), Int32(truncatingIfNeeded: column), keys + count))
    #else
      if any(load(row, column) .> thresholds) {
        for c in column..<column &+ 16 {
          // A key is always written, and kept if above: a branch would be mispredicted half of the time.
          keys[count] = UInt64(row[c].bitPattern) << 32 | UInt64(~UInt32(truncatingIfNeeded: c))
          count &+= row[c] > threshold ? 1 : 0
        }
      }
    #endif
    column &+= 16
  }
  return count
}

/// Moves the `wanted` largest keys to the front, largest first; returns how many there are. Writes up to `selectionScratch`
/// places past the keys.
func keepLargest(_ keys: UnsafeMutablePointer<UInt64>, _ count: Int, _ wanted: Int) -> Int {
  let kept = count < wanted ? count : wanted
  if kept <= 0 { return 0 }
  var left = count
  if left > wanted &+ wanted / 2 &+ 16 { left = narrow(keys, left, wanted) }
  if left <= mostRankedKeys {
    sortByRanks(keys, left, kept)
  } else {
    partition(keys, left, wanted)
    sortDescending(keys, kept)
  }
  return kept
}

/// Keys as processors compare them: all are positive, so the order of signed numbers is theirs.
private typealias Keys = SIMD8<Int64>

@inline(__always)
private func loadKeys(_ keys: UnsafePointer<UInt64>, _ vector: Int) -> Keys {
  UnsafeRawPointer(keys + 8 &* vector).loadUnaligned(as: Keys.self)
}

/// Fills the last vector up with zeros, which are below every key; returns the number of vectors.
@inline(__always)
private func padKeys(_ keys: UnsafeMutablePointer<UInt64>, _ count: Int) -> Int {
  UnsafeMutableRawPointer(keys + count).storeBytes(of: Keys.zero, as: Keys.self)
  return (count &+ 7) / 8
}

/// Drops keys that are not among the `wanted` largest; returns how many are left.
///
/// Counting takes no branch for a key. Partitioning by a pivot does, and half of those branches are mispredicted.
private func narrow(_ keys: UnsafeMutablePointer<UInt64>, _ count: Int, _ wanted: Int) -> Int {
  let vectors = padKeys(keys, count)
  var largest: Int64 = 0
  for i in 0..<count where Int64(bitPattern: keys[i]) > largest { largest = Int64(bitPattern: keys[i]) }
  let threshold = thresholdReached(by: wanted, largest: largest) { keysReaching($0, keys, vectors) }
  var left = 0
  for i in 0..<count {
    let key = keys[i]
    keys[left] = key
    left &+= Int64(bitPattern: key) >= threshold ? 1 : 0
  }
  return left
}

/// Finds by bisection a threshold that exactly `wanted` numbers reach. Where ties leave none, it is the largest that more
/// numbers reach; where fewer numbers are positive, it is 0.
@inline(__always)
private func thresholdReached(by wanted: Int, largest: Int64, _ reaching: (_ threshold: Int64) -> Int) -> Int64 {
  var low: Int64 = 0
  var high = largest &+ 1
  while high &- low > 1 {
    let middle = low &+ (high &- low) / 2
    let reached = reaching(middle)
    if reached < wanted { high = middle } else { low = middle }
    if reached == wanted { break }
  }
  return low
}

private func keysReaching(_ threshold: Int64, _ keys: UnsafePointer<UInt64>, _ vectors: Int) -> Int {
  let thresholds = Keys(repeating: threshold)
  var sums = Keys.zero
  for i in 0..<vectors { sums = sums &- unsafeBitCast(loadKeys(keys, i) .>= thresholds, to: Keys.self) }  // a true lane is -1
  var sum: Int64 = 0
  for lane in 0..<8 { sum = sum &+ sums[lane] }
  return Int(sum)
}

/// Sorts the `kept` largest keys to the front: a key's place is the number of larger ones. No branch depends on a key.
private func sortByRanks(_ keys: UnsafeMutablePointer<UInt64>, _ count: Int, _ kept: Int) {
  let vectors = padKeys(keys, count)
  let sorted = keys + (count &+ 8)
  for i in 0..<vectors {
    let own = loadKeys(keys, i)
    var ranks = Keys.zero
    for j in 0..<count {
      ranks = ranks &- unsafeBitCast(Keys(repeating: Int64(bitPattern: keys[j])) .> own, to: Keys.self)
    }
    // Zeros past the end have the place behind the last.
    for lane in 0..<8 { sorted[Int(ranks[lane])] = UInt64(bitPattern: own[lane]) }
  }
  for i in 0..<kept { keys[i] = sorted[i] }
}

/// The smallest of the `wanted` largest values; 0 where fewer are positive. Writes a vector past the values.
func smallestOfLargest(_ values: Floats, _ count: Int, _ wanted: Int) -> Float {
  store(Vector(repeating: -.infinity), values, count)
  let vectors = (count &+ 15) / 16
  var largest = Vector.zero
  for i in 0..<vectors {
    let own = load(values, 16 &* i)
    largest = largest.replacing(with: own, where: own .> largest)
  }
  // Bits of positive floats order as the floats do.
  let bits = thresholdReached(by: wanted, largest: Int64(largestLane(largest).bitPattern)) {
    valuesReaching(Float(bitPattern: UInt32(truncatingIfNeeded: $0)), values, vectors)
  }
  return bits > 0 ? smallestReaching(Float(bitPattern: UInt32(truncatingIfNeeded: bits)), values, vectors) : 0
}

private func smallestReaching(_ threshold: Float, _ values: ConstantFloats, _ vectors: Int) -> Float {
  var smallest = Vector(repeating: .infinity)
  for i in 0..<vectors {
    let own = load(values, 16 &* i)
    smallest = smallest.replacing(with: own, where: (own .>= threshold) .& (own .< smallest))
  }
  var result = smallest[0]
  for lane in 1..<16 where smallest[lane] < result { result = smallest[lane] }
  return result
}

private func valuesReaching(_ threshold: Float, _ values: ConstantFloats, _ vectors: Int) -> Int {
  let thresholds = Vector(repeating: threshold)
  var sums = Integers.zero
  for i in 0..<vectors { sums = sums &- unsafeBitCast(load(values, 16 &* i) .>= thresholds, to: Integers.self) }
  return Int(usae_sum(sums))
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

/// Heap sort: in place, no recursion.
private func sortDescending(_ keys: UnsafeMutablePointer<UInt64>, _ count: Int) {
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
