/// A matrix whose rows have few adjacent elements: what resizes along one axis, and its transpose.
struct BandedMatrix: Sendable {
  let rows, columns: Int
  /// Elements of a row that are kept, zeros among them; the same for all rows.
  let taps: Int
  /// First column that is kept, [rows]; `starts + taps <= columns`.
  let starts: [Int32]
  let weights: [Float]  // [rows, taps]

  /// Resizes `columns` samples to `rows`, linearly and without aliasing: a triangle as wide as two samples of the coarser
  /// side, cut at the ends and normalised. PyTorch's `interpolate(mode="bilinear", antialias=True)` computes the same.
  init(resizing columns: Int, to rows: Int) {
    let scale = Double(columns) / Double(rows)
    let support = max(1, scale)
    var bands: [(start: Int, weights: [Double])] = []
    for row in 0..<rows {
      let centre = (Double(row) + 0.5) * scale
      let first = max(0, Int(centre - support + 0.5)), last = min(columns, Int(centre + support + 0.5))
      let band = (first..<last).map { max(0, 1 - abs((Double($0) + 0.5 - centre) / support)) }
      let sum = band.reduce(0, +)
      bands.append((first, band.map { $0 / sum }))
    }
    self.init(bands: bands, columns: columns)
  }

  private init(bands: [(start: Int, weights: [Double])], columns: Int) {
    let taps = bands.map(\.weights.count).max() ?? 1
    var starts: [Int32] = [], weights: [Float] = []
    for band in bands {
      let start = min(band.start, columns - taps)  // all taps are read, so they must be there
      starts.append(Int32(start))
      weights += [Float](repeating: 0, count: band.start - start) + band.weights.map(Float.init)
      weights += [Float](repeating: 0, count: taps - (band.start - start) - band.weights.count)
    }
    rows = bands.count
    self.columns = columns
    self.taps = taps
    self.starts = starts
    self.weights = weights
  }

  /// - Precondition: bands move on from row to row, as those of a resizing do.
  var transposed: BandedMatrix {
    var bands: [(start: Int, weights: [Double])] = []
    var first = 0
    for column in 0..<columns {
      while first < rows, Int(starts[first]) + taps <= column { first += 1 }
      var band: [Double] = []
      var row = first
      while row < rows, Int(starts[row]) <= column {
        band.append(Double(weights[row * taps + column - Int(starts[row])]))
        row += 1
      }
      bands.append(band.isEmpty ? (min(first, rows - 1), [0]) : (first, band))
    }
    return BandedMatrix(bands: bands, columns: rows)
  }
}
