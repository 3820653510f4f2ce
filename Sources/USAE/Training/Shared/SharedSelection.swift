/// BatchTopK over the batch of all processes: two histograms, and the number of ties in each process, determine which entries
/// each process keeps. They are those that one process would keep.
///
/// Counts are exchanged as floats, which are exact up to 2^24 entries in a bin; a bin is 1/128 of a value wide.
struct SharedSelection {
  /// The encoder whose codes are selected.
  let seat: Int
  /// How many entries all processes keep.
  private var wanted = 0
  private var upper: UInt32 = 0
  private var above = 0
  /// Entries of all processes in the bin that was found last.
  private var inBin = 0
  private(set) var smallest: Float?
  /// Of the entries that equal the smallest, how many are kept by all processes, and how many are in this one.
  private var equalOnes = 0
  private var ownEqualOnes = 0
  private var keptEqualOnes = 0

  init(seat: Int) { self.seat = seat }
}

extension SharedSelection {
  mutating func fill(_ kind: SharedExchange.Kind, _ step: SharedStep, rank: Int, to data: UnsafeMutableBufferPointer<Float>) {
    guard let out = data.baseAddress, let selection = step.workspace.batchSelection else { return }
    let (codes, rows) = (step.workspace.codes, step.workspace.encodings.range(seat))
    switch kind {
    case .upperHalves: selection.writeHistogram(codes, rows: rows, upper: nil, to: out)
    case .lowerHalves:
      selection.writeHistogram(codes, rows: rows, upper: upper, to: out)
    default:
      data.update(repeating: 0)
      guard let smallest else { return }
      ownEqualOnes = 0
      for t in rows {
        for q in 0..<codes.count(t) where codes.values(t)[q] == smallest { ownEqualOnes += 1 }
      }
      out[rank] = Float(ownEqualOnes)
    }
  }

  mutating func takeUpperHalves(_ sum: SharedSum, _ step: SharedStep) throws(USAEError) {
    let counts = try histogram(sum, step)
    wanted = min(batchEntries(step.local.trainer.k, tokens: step.workspace.totalRows), counts.reduce(0, +))
    guard wanted > 0 else { return }
    (upper, above) = BatchSelection.bin(rank: wanted, of: counts.count) { counts[$0] }
    inBin = counts[Int(upper)]
    // Entries are positive and, unless activations overflowed, finite.
    let largest = counts.lastIndex { $0 > 0 } ?? 0
    guard largest < 0x8000 else { throw sum.refuse("no entries below 0", got: "\(counts[largest])") }
    guard largest < 0x7F80 else { throw .lossNotFinite(step: step.local.number + 1) }
  }

  mutating func takeLowerHalves(_ sum: SharedSum, _ step: SharedStep) throws(USAEError) {
    let counts = try histogram(sum, step)
    let total = counts.reduce(0, +)
    guard SharedSum.agrees(total, with: inBin) else {
      throw sum.refuse("\(inBin) entries, as \(SharedExchange.Kind.upperHalves) says", got: "\(total)")
    }
    guard wanted > 0, total > 0 else { return }
    let (lower, between) = BatchSelection.bin(rank: min(wanted - above, total), of: counts.count) { counts[$0] }
    smallest = Float(bitPattern: upper << 16 | lower)
    inBin = counts[Int(lower)]
    equalOnes = wanted - above - between
  }

  mutating func takeTies(_ sum: SharedSum, rank: Int) throws(USAEError) {
    let counts = try sum.counts(0..<sum.numbers.count, most: Double(inBin), together: true)
    let total = counts.reduce(0, +)
    guard SharedSum.agrees(total, with: inBin), SharedSum.agrees(counts[rank], with: ownEqualOnes) else {
      throw sum.refuse("\(inBin) entries, \(ownEqualOnes) of them this process's", got: "\(total), \(counts[rank])")
    }
    keptEqualOnes = max(0, min(ownEqualOnes, equalOnes - counts[..<rank].reduce(0, +)))
  }

  /// Counts by bin, each at least this process's own.
  private func histogram(_ sum: SharedSum, _ step: SharedStep) throws(USAEError) -> [Int] {
    let counts = try sum.counts(0..<sum.numbers.count, most: step.mostEntries(encoders: 1), together: true)
    guard let selection = step.workspace.batchSelection else { return counts }
    for bin in counts.indices where counts[bin] < Int(Float(selection.ownCount(bin))) {
      throw sum.refuse("at least this process's \(selection.ownCount(bin)) at position \(bin)", got: "\(counts[bin])")
    }
    return counts
  }

  /// Shortens this process's codes.
  func cut(_ step: SharedStep, _ forward: TrainingStep.Forward, work: InterruptibleWork) throws(USAEError) {
    guard let selection = step.workspace.batchSelection else { return }
    selection.remember(smallest, model: step.local.encoders[seat])
    guard let smallest else { return }
    selection.cut(
      step.workspace.codes, rows: step.workspace.encodings.range(seat), to: smallest, equalOnes: keptEqualOnes)
    if let dead = forward.auxiliary.dead { try step.local.takeTrimmed(seat, selection, dead, work: work) }
  }
}
