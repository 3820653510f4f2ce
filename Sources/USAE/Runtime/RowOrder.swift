/// Visits every row once per pass, in an order that depends on the seed and the pass alone, without storing it.
///
/// A Feistel network permutes 0..<2^b for the smallest even b that holds the rows; positions that land outside are sent through
/// again until they land inside ("cycle walking", fewer than four times on average). So the row at any position is computed by
/// itself: nothing is shuffled, stored or saved, and a run can resume at any position.
struct RowOrder: Sendable {
  let rows: Int
  private let halfBits: UInt64
  private let random: CounterRandom

  /// - Parameter part: tells orders of as many rows of the same kind apart.
  init(seed: UInt64, rows: Int, stream: CounterRandom.Stream = .rowOrder, part: Int = 0) {
    self.rows = rows
    let bits = max(2, UInt64(Int.bitWidth - max(rows - 1, 1).leadingZeroBitCount))
    halfBits = (bits + 1) / 2
    random = CounterRandom(seed: seed, stream: stream, part: part)
  }

  /// Row at a position of the endless sequence pass 0, pass 1, ...
  func row(at position: Int) -> Int {
    let pass = UInt64(position / rows)
    var value = UInt64(position % rows)
    repeat { value = permuted(value, pass) } while value >= UInt64(rows)
    return Int(value)
  }

  /// Six rounds: four make a good pseudo-random permutation, two more cost little.
  private func permuted(_ value: UInt64, _ pass: UInt64) -> UInt64 {
    let mask = (UInt64(1) << halfBits) - 1
    var left = value >> halfBits
    var right = value & mask
    for round in UInt64(0)..<6 {
      let mixed = Self.mix(right ^ random.bits(pass &* 6 &+ round))
      (left, right) = (right, left ^ (mixed & mask))
    }
    return left << halfBits | right
  }

  /// The finaliser of SplitMix64: every input bit reaches every output bit.
  private static func mix(_ input: UInt64) -> UInt64 {
    var z = input &+ 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
