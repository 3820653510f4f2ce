/// BatchTopK keeps the n_tokens * k largest entries of a batch's codes, rounded down (`batchEntries`), so that a token has as
/// many as it needs, up to its slots. Ties go to the earlier token, then to the lower concept.
///
/// Entries are positive, and bits of positive floats order as the floats do, so two histograms, one of upper halves of the
/// bits and one of lower, find the smallest entry to keep: time grows with the entries alone, whatever their distribution.
///
/// To fill all slots would select several times as many entries as are kept. So entries are selected above a threshold a little
/// below the smallest that the model's last batch kept; if fewer than wanted are above it, they are selected again above 0.
/// What is kept does not depend on the threshold.
final class BatchSelection {
  /// Used slots of each row of codes before they were trimmed.
  private let offered: AlignedBuffer<Int32>
  private let histogram: AlignedBuffer<Int>
  /// The smallest entry that the last batch kept, by encoded model.
  private var lastKept: [Int: Float] = [:]
  /// The threshold as a share of the smallest entry that was kept: low enough that most batches have enough entries above it,
  /// high enough to save most of the work.
  private static let thresholdShare: Float = 0.85

  init(rows: Int) throws(USAEError) {
    offered = try AlignedBuffer<Int32>(rows)
    histogram = try AlignedBuffer<Int>(Self.bins)
  }

  /// The selection threshold for a model's next batch; 0 if nothing is known.
  func threshold(model: Int) -> Float { Self.thresholdShare * (lastKept[model] ?? 0) }

  /// Number of entries of some rows of codes.
  func total(_ codes: CodeBuffer, rows: Range<Int>) -> Int { rows.reduce(0) { $0 + codes.count($1) } }

  /// Shortens some rows of codes, each with its largest entries first, to `wanted` entries in all, or leaves them where there
  /// are fewer. Returns the smallest entry that is left, or nil where there is none.
  func trim(_ codes: CodeBuffer, rows: Range<Int>, wanted: Int, model: Int) -> Float? {
    let kept = trim(codes, rows: rows, wanted: wanted)
    lastKept[model] = kept
    return kept
  }

  private func trim(_ codes: CodeBuffer, rows: Range<Int>, wanted: Int) -> Float? {
    guard total(codes, rows: rows) > wanted else {
      noteOffered(codes, rows: rows)
      return smallest(codes, rows)
    }
    let (smallest, largerOnes) = smallestToKeep(codes, rows, wanted)
    cut(codes, rows: rows, to: smallest, equalOnes: wanted - largerOnes)
    return smallest
  }

  private func noteOffered(_ codes: CodeBuffer, rows: Range<Int>) {
    (offered.base + rows.lowerBound).update(from: codes.counts.base + rows.lowerBound, count: rows.count)
  }

  /// Shortens the codes to the entries above `smallest` and the first so many of those that equal it.
  func cut(_ codes: CodeBuffer, rows: Range<Int>, to smallest: Float, equalOnes: Int) {
    noteOffered(codes, rows: rows)
    var equalOnes = equalOnes
    for t in rows {
      let values = codes.values(t)
      var kept = codes.count(t)
      while kept > 0, values[kept &- 1] < smallest { kept &-= 1 }
      var larger = kept
      while larger > 0, values[larger &- 1] == smallest { larger &-= 1 }
      kept = min(kept, larger &+ equalOnes)
      equalOnes &-= kept &- larger
      codes.counts.base[t] = Int32(truncatingIfNeeded: kept)
    }
  }

  /// Stores the smallest entry that was kept in a batch of several processes.
  func remember(_ smallest: Float?, model: Int) { lastKept[model] = smallest }

  /// Slots of a token, with their entries still in them, that `trim` took from its code.
  @inline(__always) func trimmed(_ codes: CodeBuffer, _ token: Int) -> Range<Int> {
    codes.count(token)..<Int(offered.base[token])
  }

  private func smallest(_ codes: CodeBuffer, _ rows: Range<Int>) -> Float? {
    var smallest: Float?
    for t in rows where codes.count(t) > 0 {
      let last = codes.values(t)[codes.count(t) - 1]
      smallest = min(smallest ?? last, last)
    }
    return smallest
  }

  /// The `wanted`-th largest of more entries, and how many are larger than it.
  private func smallestToKeep(_ codes: CodeBuffer, _ rows: Range<Int>, _ wanted: Int) -> (Float, larger: Int) {
    let (upper, above) = bin(codes, rows, rank: wanted) { $0 >> 16 }
    let (lower, between) = bin(codes, rows, rank: wanted - above) { $0 >> 16 == upper ? $0 & 0xffff : nil }
    return (Float(bitPattern: upper << 16 | lower), above + between)
  }

  /// The bin that holds the entry of this rank, 1 being the largest, and how many are in the bins above it.
  private func bin(_ codes: CodeBuffer, _ rows: Range<Int>, rank: Int, _ binOf: (UInt32) -> UInt32?) -> (UInt32, above: Int) {
    fill(codes, rows, binOf)
    return Self.bin(rank: rank, of: histogram.count) { histogram.base[$0] }
  }

  /// Counts entries by bin.
  private func fill(_ codes: CodeBuffer, _ rows: Range<Int>, _ binOf: (UInt32) -> UInt32?) {
    histogram.zero()
    for t in rows {
      let values = codes.values(t)
      for q in 0..<codes.count(t) {
        if let bin = binOf(values[q].bitPattern) { histogram.base[Int(bin)] &+= 1 }
      }
    }
  }

  static func bin(rank: Int, of bins: Int, _ count: (Int) -> Int) -> (UInt32, above: Int) {
    var above = 0
    var bin = bins - 1
    while above + count(bin) < rank {
      above += count(bin)
      bin -= 1
    }
    return (UInt32(bin), above)
  }

  static let bins = 1 << 16

  /// What `writeHistogram` counted last.
  func ownCount(_ bin: Int) -> Int { histogram.base[bin] }

  /// Writes the histogram of the entries' upper halves of bits or, for those with the upper half `upper`, of their lower
  /// halves. Counts are floats, so that processes can add them up.
  func writeHistogram(_ codes: CodeBuffer, rows: Range<Int>, upper: UInt32?, to out: UnsafeMutablePointer<Float>) {
    fill(codes, rows) { bits in
      guard let upper else { return bits >> 16 }
      return bits >> 16 == upper ? bits & 0xffff : nil
    }
    for bin in 0..<Self.bins { out[bin] = Float(histogram.base[bin]) }
  }
}

extension ModelParameters {
  /// Weight of a batch in the running threshold, as BatchNorm's in its running statistics.
  private static let thresholdMomentum: Float = 0.1

  /// Moves the running threshold towards the smallest entry that a batch kept; the first batch sets it.
  func followThreshold(_ smallest: Float) {
    guard let threshold else { return }
    let old = threshold.base[0]
    threshold.base[0] =
      old > 0 ? (1 - Self.thresholdMomentum) * old + Self.thresholdMomentum * smallest : smallest
  }
}
