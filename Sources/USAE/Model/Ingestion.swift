import Synchronization

/// Standardised float32 rows of one model, [rows, stride]: a copy of a selection of the caller's activations.
struct Ingestion {
  let model: ModelParameters
  let activations: Activations

  /// Rows handled by one piece of work.
  static let blockRows = 64

  /// Copies the rows at `positions` of the selection into the first rows of `out`.
  ///
  /// - Parameter scratch: one buffer of the model's width per thread.
  /// - Throws: `notFinite` with the caller's number of the first such row.
  func copy(
    _ positions: Range<Int>, of selection: RowSelection, to out: PaddedMatrix, scratch: [FloatBuffer], work: InterruptibleWork
  ) throws(USAEError) {
    let firstBad = Atomic<Int>(Int.max)
    try work.runBlocks(positions.count, of: Self.blockRows) { _, range, worker in
      for offset in range {
        let row = selection.row(positions.lowerBound + offset)
        let finite = self.activations.standardize(
          row: row, mean: self.model.mean.base, inverseScale: self.model.inverseScale.base,
          scratch: scratch[worker].base, out: out.row(offset))
        if !finite { firstBad.lower(to: offset) }
      }
    }
    let bad = firstBad.load(ordering: .relaxed)
    if bad != Int.max { throw notFinite(row: selection.row(positions.lowerBound + bad)) }
  }

  private func notFinite(row: Int) -> USAEError {
    let column = activations.firstNotFinite(row: row) ?? 0
    return .notFinite(model: activations.name, row: activations.number(ofRow: row), column: column)
  }
}

extension Atomic where Value == Int {
  fileprivate borrowing func lower(to candidate: Int) {
    var current = load(ordering: .relaxed)
    while candidate < current {
      let (exchanged, original) = compareExchange(expected: current, desired: candidate, ordering: .relaxed)
      if exchanged { return }
      current = original
    }
  }
}
