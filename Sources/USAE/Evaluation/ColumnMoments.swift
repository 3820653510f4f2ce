/// Sums over tokens of x and its square, per column, about a shift that keeps their difference well conditioned.
///
/// A column is summed by one thread over the tokens in order, so the sums depend neither on the number of threads nor on the
/// size of the chunks that the tokens come in.
final class ColumnMoments: @unchecked Sendable {
  private let columns: Int
  private let shift, sums, squares: AlignedBuffer<Double>
  private var count = 0

  init(columns: Int) throws(USAEError) {
    self.columns = columns
    shift = try AlignedBuffer<Double>(columns)
    sums = try AlignedBuffer<Double>(columns)
    squares = try AlignedBuffer<Double>(columns)
  }

  /// Adds the first `count` rows; the shift is the first row of all.
  func add(_ rows: PaddedMatrix, count added: Int, work: InterruptibleWork) throws(USAEError) {
    if count == 0 { for c in 0..<columns { shift.base[c] = Double(rows.row(0)[c]) } }
    // Pieces are as wide as possible, since short pieces of rows are slow to read.
    let share = max(64, (columns + work.threads - 1) / work.threads)
    try work.runBlocks(columns, of: share) { _, range, _ in
      let (shift, sums, squares) = (self.shift.base, self.sums.base, self.squares.base)
      for t in 0..<added {
        let row = rows.row(t)
        for c in range {
          let x = Double(row[c]) - shift[c]
          sums[c] += x
          squares[c] += x * x
        }
      }
    }
    count += added
  }

  /// Sum of squared distances from the column's mean.
  var variations: [Double] {
    (0..<columns).map { max(0, squares.base[$0] - sums.base[$0] * sums.base[$0] / Double(count)) }
  }

  /// Sum of squared distances of all elements from one mean.
  var variationAboutOneMean: Double {
    let means = (0..<columns).map { shift.base[$0] + sums.base[$0] / Double(count) }
    let mean = means.reduce(0, +) / Double(columns)
    return zip(variations, means).reduce(0) { $0 + $1.0 + Double(count) * ($1.1 - mean) * ($1.1 - mean) }
  }
}
