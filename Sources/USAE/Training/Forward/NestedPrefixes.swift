/// Matryoshka: each of several prefixes of the concepts has to reconstruct by itself.
///
/// The main loss is the mean of the losses of all prefixes. Concepts between two prefixes are a group: a token's slots are
/// ordered by group, so that one pass over them leaves the residual of every prefix. A slot's gradient, and the slope that its
/// dictionary row gathers, is the sum over the prefixes that hold its group: sums from the last prefix to the first.
final class NestedPrefixes: @unchecked Sendable {
  /// Concepts before these numbers, ascending; the last is all.
  let ends: [Int]
  /// For every prefix but the last, and each model, [rows, width]: the residual, then the sum of slopes from this prefix on.
  /// Those of the last prefix are the workspace's residuals.
  private let shorter: [[PaddedMatrix]]
  /// Where a token's slots of each group end, [rows, prefixes].
  private let slotEnds: AlignedBuffer<Int32>
  /// Scratch memory for one token's slots, for each thread.
  private let scratch: [AlignedBuffer<UInt64>]

  init(ends: [Int], rows: Int, slots: Int, widths: [Int], threads: Int) throws(USAEError) {
    self.ends = ends
    scratch = try (0..<threads).map { _ throws(USAEError) in try AlignedBuffer<UInt64>(slots) }
    slotEnds = try AlignedBuffer<Int32>(rows * ends.count)
    var shorter: [[PaddedMatrix]] = []
    for _ in ends.dropLast() {
      var matrices: [PaddedMatrix] = []
      for width in widths { matrices.append(try PaddedMatrix(rows: rows, columns: width)) }
      shorter.append(matrices)
    }
    self.shorter = shorter
  }

  var count: Int { ends.count }

  /// The first prefix that holds a concept.
  @inline(__always) func group(of concept: Int) -> Int {
    var group = 0
    while ends[group] <= concept { group &+= 1 }
    return group
  }

  /// Slots of a token whose concepts the prefix adds to the one before it.
  @inline(__always) func slots(_ token: Int, group: Int) -> Range<Int> {
    let ends = slotEnds.base + token &* count
    return (group == 0 ? 0 : Int(ends[group &- 1]))..<Int(ends[group])
  }

  /// The first row of a prefix's residuals in model `target`, then of its sums of slopes; `last` is that of the whole code's.
  @inline(__always)
  func rows(_ group: Int, target: Int, last: UnsafeMutablePointer<Float>) -> UnsafeMutablePointer<Float> {
    group == count &- 1 ? last : shorter[group][target].base
  }

  /// Sorts each token's slots by group, stably.
  func arrange(_ codes: CodeBuffer, rows: Int, work: InterruptibleWork) throws(USAEError) {
    try work.runBlocks(rows, of: Reconstruction.blockRows) { _, range, worker in
      for token in range { self.arrange(codes, token, keys: self.scratch[worker].base) }
    }
  }

  private func arrange(_ codes: CodeBuffer, _ token: Int, keys: UnsafeMutablePointer<UInt64>) {
    let (values, indices, used) = (codes.values(token), codes.indices(token), codes.count(token))
    for slot in 0..<used { keys[slot] = selectionKey(values[slot], indices[slot]) }
    let slotEnds = self.slotEnds.base + token &* count
    var place = 0
    for group in 0..<count {
      for slot in 0..<used where self.group(of: Int(column(ofKey: keys[slot]))) == group {
        values[place] = value(ofKey: keys[slot])
        indices[place] = column(ofKey: keys[slot])
        place &+= 1
      }
      slotEnds[group] = Int32(truncatingIfNeeded: place)
    }
  }
}

extension Recipe {
  /// Ends of the prefixes as numbers of concepts, or none where the whole code alone reconstructs.
  ///
  /// With few concepts some shares round to the same number, which counts once, or to 0, which does not count.
  func prefixEnds(concepts: Int) -> [Int] {
    let ends = Set(prefixes.map { Int(($0 * Double(concepts)).rounded()) }).subtracting([0]).sorted()
    return ends.count > 1 ? ends : []
  }
}
