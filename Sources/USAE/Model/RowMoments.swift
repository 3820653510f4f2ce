/// Mean and variance of each column over some rows of a model's activations, and each row's distance from the mean, in two
/// passes in double.
struct RowMoments {
  private let activations: ModelRows
  let rows: [Int]
  private let centering: Recipe.Statistic
  /// Whether elements are read as they are; else as float32, which only float64 can tell apart.
  private let exact: Bool
  /// What was subtracted: the mean of each column, or for each column the mean of all.
  private(set) var center: [Double] = []
  private(set) var deviations: [Double] = []
  /// Of each row from the centre.
  private(set) var distances: [Double] = []
  /// The most rows that equal each other in every element.
  private(set) var identicalRows = 0
  /// The distance of those rows.
  private var identicalDistance = -1.0

  private static let blockRows = 256
  /// Equal rows are looked for where more than this share has one distance.
  private static let manyEqual = 0.01

  init(
    _ activations: ModelRows, _ rows: [Int], center: Recipe.Statistic, exact: Bool, work: InterruptibleWork
  ) throws(USAEError) {
    (self.activations, self.rows, self.centering, self.exact) = (activations, rows, center, exact)
    try compute(counted: nil, work: work)
    findIdenticalRows()
  }

  /// Computes centre and deviations again without some of the rows; distances are of all rows.
  mutating func update(without outlying: [Int], work: InterruptibleWork) throws(USAEError) {
    var counted = [Bool](repeating: true, count: rows.count)
    for place in outlying { counted[place] = false }
    try compute(counted: counted, work: work)
    if identicalDistance >= 0 { findIdenticalRows() }  // their distance is another now
  }

  private mutating func compute(counted: [Bool]?, work: InterruptibleWork) throws(USAEError) {
    let width = activations.columns
    let (means, _) = try columnMeans(shift: [Double](repeating: 0, count: width), square: false, counted, work)
    center = centering == .dimension ? means : [Double](repeating: means.average, count: width)
    let (variances, squares) = try columnMeans(shift: center, square: true, counted, work)
    deviations = variances.map { $0.squareRoot() }
    overallVariance = variances.average
    distances = squares.map { $0.squareRoot() }
  }

  private var overallVariance = 0.0

  /// Root mean square of the deviations.
  var overallDeviation: Double { overallVariance.squareRoot() }

  /// Whether float32 cannot tell where in its spread an element is. float64 elements have to be read as they are then.
  var needsExactReading: Bool {
    guard activations.isFloat64 else { return false }
    return ModelParameters.needsDouble(center: { center[$0] }, scale: { _ in overallDeviation }, width: center.count)
  }

  /// Whether the deviation is no more than rounding of sums of the centre's size.
  func isConstant(_ column: Int, deviation: Double) -> Bool { deviation <= abs(center[column]) * 0x1p-40 }

  // MARK: Rows

  /// Median distance, without rows that equal many others: padding says nothing about the others' spread.
  var medianDistance: Double {
    let many = Double(identicalRows) > Self.manyEqual * Double(rows.count)
    let sorted = (many ? distances.filter { $0 != identicalDistance } : distances).sorted()
    return sorted.isEmpty ? 0 : sorted[sorted.count / 2]
  }

  /// Places in `rows` of those farther away than a multiple of the median distance.
  func outlyingRows(beyond multiple: Double) -> [Int] {
    let limit = multiple * medianDistance
    guard limit > 0 else { return [] }
    return distances.indices.filter { distances[$0] > limit }
  }

  /// Equal rows have equal distances, so only the most frequent distance has to be looked at.
  private mutating func findIdenticalRows() {
    (identicalRows, identicalDistance) = (rows.isEmpty ? 0 : 1, -1)
    let sorted = distances.sorted()
    var (best, length, distance) = (0, 0, -1.0)
    for value in sorted {
      (length, distance) = value == distance ? (length + 1, distance) : (1, value)
      if length > best { (best, identicalDistance) = (length, distance) }
    }
    guard best > 1, Double(best) > Self.manyEqual * Double(rows.count),
      let first = distances.firstIndex(of: identicalDistance)
    else {
      identicalDistance = -1
      return
    }
    let places = distances.indices.filter { distances[$0] == identicalDistance }
    identicalRows = places.reduce(0) { $0 + (activations.equal(rows[first], rows[$1]) ? 1 : 0) }
    if Double(identicalRows) <= Self.manyEqual * Double(rows.count) { identicalDistance = -1 }
  }

  /// Mean over the counted rows of (a - shift), or of its square, for each column; and for each row the sum over its columns.
  private func columnMeans(
    shift: [Double], square: Bool, _ counted: [Bool]?, _ work: InterruptibleWork
  ) throws(USAEError) -> (means: [Double], rowSums: [Double]) {
    let width = activations.columns
    let blocks = (rows.count + Self.blockRows - 1) / Self.blockRows
    let partial = try AlignedBuffer<Double>(blocks * width)
    let rowSums = try AlignedBuffer<Double>(rows.count)
    var readers: [RowReader] = []
    for _ in 0..<work.threads { readers.append(try RowReader(activations, exact: exact)) }
    let bad = try AlignedBuffer<Int64>(blocks)
    let scratch = readers
    try work.runBlocks(rows.count, of: Self.blockRows) { block, range, worker in
      let sums = partial.base + block * width
      let reader = scratch[worker]
      bad.base[block] = -1
      for r in range {
        if !reader.read(self.rows[r]), bad.base[block] < 0 { bad.base[block] = Int64(self.rows[r]) }
        let values = reader.values.base
        for c in 0..<width {
          let centred = values[c] - shift[c]
          values[c] = square ? centred * centred : centred
        }
        if square { rowSums.base[r] = reader.sum() }
        if let counted, !counted[r] { continue }
        for c in 0..<width { sums[c] += values[c] }
      }
    }
    for block in 0..<blocks where bad.base[block] >= 0 {
      throw activations.notFinite(row: Int(bad.base[block]))
    }
    var means = [Double](repeating: 0, count: width)
    for block in 0..<blocks {
      for c in 0..<width { means[c] += partial.base[block * width + c] }
    }
    let n = Double(counted?.reduce(0) { $0 + ($1 ? 1 : 0) } ?? rows.count)
    return (means.map { $0 / n }, Array(UnsafeBufferPointer(start: rowSums.base, count: rows.count)))
  }
}

/// One thread's reader of rows as double.
private final class RowReader: @unchecked Sendable {
  private let activations: ModelRows
  private let exact: Bool
  /// Padded with zeros to whole vectors.
  let values: AlignedBuffer<Double>
  private let row, scratch: FloatBuffer
  private let zeros, ones: PaddedMatrix

  init(_ activations: ModelRows, exact: Bool) throws(USAEError) {
    (self.activations, self.exact) = (activations, exact)
    let stride = paddedWidth(activations.columns)
    values = try AlignedBuffer<Double>(stride)
    row = try FloatBuffer(stride)
    scratch = try FloatBuffer(stride)
    zeros = try PaddedMatrix(rows: 1, columns: activations.columns)
    ones = try PaddedMatrix(rows: 1, columns: activations.columns)
    ones.storage.fill(1)
  }

  /// Puts a row into `values`; false if it holds a number that is not finite as float32.
  func read(_ number: Int) -> Bool {
    let finite = activations.standardize(
      row: number, mean: zeros.base, inverseScale: ones.base, scratch: scratch.base, out: row.base)
    if exact && finite {
      activations.read(row: number, to: values.base)
    } else {
      for c in 0..<activations.columns { values.base[c] = Double(row.base[c]) }
    }
    return finite
  }

  /// Sum of the values, eight lanes at a time.
  func sum() -> Double {
    let pointer = UnsafeRawPointer(values.base)
    var lanes = SIMD8<Double>.zero
    for c in stride(from: 0, to: values.count, by: 8) {
      lanes += pointer.loadUnaligned(fromByteOffset: c &* 8, as: SIMD8<Double>.self)
    }
    return lanes.sum()
  }
}

/// What the sample that mean and scale come from looked like.
package struct SampleReport: Sendable {
  package let rows: Int
  /// Rows that are farther from the centre than the recipe's multiple of the median distance (the default's, if it has none).
  package let outlyingRows: Int
  /// Those that count for neither mean nor scale: all of them or, where they are too many or the recipe has no multiple, none.
  package let leftOutRows: Int
  package let identicalRows: Int
  package let medianDistance, largestDistance: Double
  /// Mean and standard deviation of each column, over the rows that were not left out.
  package let means, deviations: [Double]

  init(_ moments: RowMoments, outlying: Int, leftOut: Int) {
    rows = moments.rows.count
    outlyingRows = outlying
    leftOutRows = leftOut
    identicalRows = moments.identicalRows
    medianDistance = moments.medianDistance
    largestDistance = moments.distances.max() ?? 0
    means = moments.center
    deviations = moments.deviations
  }
}

extension [Double] {
  fileprivate var average: Double { reduce(0, +) / Double(Swift.max(count, 1)) }
}
