/// BatchTopK over the batch of all processes: two histograms, and the number of ties in each process, determine which entries
/// each process keeps. They are those that one process would keep.
///
/// Counts are exchanged as floats, which are exact up to 2^24 entries in a bin; a bin is 1/128 of a value wide.
struct SharedSelection {
  /// How many entries all processes keep.
  private var wanted = 0
  private var upper: UInt32 = 0
  private var above = 0
  private(set) var smallest: Float?
  /// Of the entries that equal the smallest, how many are kept by all processes, and how many are in this one.
  private var equalOnes = 0
  private var ownEqualOnes = 0
  private var keptEqualOnes = 0
}

extension SharedSelection {
  mutating func fill(_ kind: SharedExchange.Kind, _ step: SharedStep, rank: Int, to data: UnsafeMutableBufferPointer<Float>) {
    guard let out = data.baseAddress, let selection = step.workspace.batchSelection else { return }
    let (codes, rows) = (step.workspace.codes, step.workspace.rows)
    switch kind {
    case .upperHalves: selection.writeHistogram(codes, rows: rows, upper: nil, to: out)
    case .lowerHalves:
      selection.writeHistogram(codes, rows: rows, upper: upper, to: out)
    default:
      data.update(repeating: 0)
      guard let smallest else { return }
      ownEqualOnes = 0
      for t in 0..<rows {
        for q in 0..<codes.count(t) where codes.values(t)[q] == smallest { ownEqualOnes += 1 }
      }
      out[rank] = Float(ownEqualOnes)
    }
  }

  mutating func take(_ kind: SharedExchange.Kind, _ step: SharedStep, rank: Int, _ sum: UnsafeBufferPointer<Float>) {
    switch kind {
    case .upperHalves:
      wanted = min(step.workspace.totalRows * step.local.trainer.k, sum.reduce(0) { $0 + Int($1) })
      if wanted > 0 { (upper, above) = BatchSelection.bin(rank: wanted, of: sum.count) { Int(sum[$0]) } }
    case .lowerHalves:
      guard wanted > 0 else { return }
      let (lower, between) = BatchSelection.bin(rank: wanted - above, of: sum.count) { Int(sum[$0]) }
      smallest = Float(bitPattern: upper << 16 | lower)
      equalOnes = wanted - above - between
    default:
      let earlier = sum[..<rank].reduce(0) { $0 + Int($1) }
      keptEqualOnes = max(0, min(ownEqualOnes, equalOnes - earlier))
    }
  }

  /// Shortens this process's codes.
  func cut(_ step: SharedStep, _ forward: TrainingStep.Forward, work: InterruptibleWork) throws(USAEError) {
    guard let selection = step.workspace.batchSelection else { return }
    let (codes, rows) = (step.workspace.codes, step.workspace.rows)
    selection.remember(smallest, model: step.local.encoder)
    guard let smallest else { return }
    selection.cut(codes, rows: rows, to: smallest, equalOnes: keptEqualOnes)
    try forward.auxiliary.dead?.takeTrimmed(from: codes, selection, rows: rows, isDead: step.local.isDead, work: work)
  }
}
