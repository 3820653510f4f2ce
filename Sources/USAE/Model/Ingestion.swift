import Synchronization

/// Standardised float32 rows of one model, [rows, stride]: a copy of a selection of the caller's activations.
struct Ingestion {
  let model: ModelParameters
  let activations: Activations
  /// What is done with tokens that are too long.
  let lengths: TokenLengths

  /// Rows handled by one piece of work.
  static let blockRows = 64

  /// Copies the rows at `positions` of the selection into the first rows of `out`.
  ///
  /// - Parameter scratch: one buffer of the model's width per thread.
  /// - Throws: `notFinite` or `tooLarge` with the caller's number of the first such row.
  func copy(
    _ positions: Range<Int>, of selection: RowSelection, to out: PaddedMatrix, scratch: [FloatBuffer], work: InterruptibleWork
  ) throws(USAEError) {
    let firstBad = Atomic<Int>(Int.max)
    let limit = lengths.limit(of: model)
    try work.runBlocks(positions.count, of: Self.blockRows) { _, range, worker in
      for offset in range {
        let row = selection.row(positions.lowerBound + offset)
        let token = out.row(offset)
        let fits = self.standardize(row, scratch: scratch[worker].base, to: token)
        // NaN, where the square overflows as a sum of large numbers, is not at most the limit either.
        if fits, kernels.rows.dot(token, token, out.stride) <= limit { continue }
        if !fits || !self.lengths.settle(token, out.stride, of: self.model) { firstBad.lower(to: offset) }
      }
    }
    let bad = firstBad.load(ordering: .relaxed)
    if bad != Int.max { throw error(row: selection.row(positions.lowerBound + bad), scratch: scratch[0].base, out) }
  }

  private func standardize(_ row: Int, scratch: UnsafeMutablePointer<Float>, to out: UnsafeMutablePointer<Float>) -> Bool {
    if let doubles = model.doubles { return activations.standardize(row: row, doubles, out: out) }
    return activations.standardize(
      row: row, mean: model.mean.base, inverseScale: model.inverseScale.base, scratch: scratch, out: out)
  }

  private func error(row: Int, scratch: UnsafeMutablePointer<Float>, _ out: PaddedMatrix) -> USAEError {
    if let column = activations.firstNotFinite(row: row) {
      return .notFinite(model: activations.name, row: activations.number(ofRow: row), column: column)
    }
    let token = out.row(0)
    _ = standardize(row, scratch: scratch, to: token)
    let column = (0..<model.width).max { abs(token[$0]) < abs(token[$1]) } ?? 0
    let value = Float(activations.element(row: row, column: column))
    return .tooLarge(model: activations.name, row: activations.number(ofRow: row), column: column, value: value)
  }

  /// The error for a row whose code is not finite.
  static func tooLarge(_ activations: Activations, row: Int) -> USAEError {
    func size(_ column: Int) -> Double { abs(activations.element(row: row, column: column)) }
    let column = (0..<activations.columns).max { size($0) < size($1) } ?? 0
    let value = Float(activations.element(row: row, column: column))
    return .tooLarge(model: activations.name, row: activations.number(ofRow: row), column: column, value: value)
  }
}

/// How long a standardised token may be. A typical one has the length of the square root of the width.
enum TokenLengths {
  /// A token longer than this multiple of the typical length is shortened to the typical length, for training: a loss of
  /// squares would be all about such tokens even if they were only as long as the limit. 0 shortens none.
  case atMost(Double)
  /// The token's code has to be finite.
  case encodable
  /// Squares of its residuals have to be finite as well.
  case comparable

  /// Squares up to this are surely no problem.
  private static let harmless: Float = 0x1p100
  /// Squared residuals of 64 tokens, which may be several times as long, are added up in float32.
  private static let largestComparable = 0x1p112

  /// The largest square of a length with which nothing has to be done.
  func limit(of model: ModelParameters) -> Float {
    guard case .atMost(let multiple) = self, multiple > 0, model.isStandardized else { return Self.harmless }
    return Float(min(multiple * multiple * Double(model.width), Double(Self.harmless)))
  }

  /// Shortens a token, or tells whether it can stay as it is.
  func settle(_ token: UnsafeMutablePointer<Float>, _ stride: Int, of model: ModelParameters) -> Bool {
    var square = 0.0
    for c in 0..<stride { square += Double(token[c]) * Double(token[c]) }
    switch self {
    case .atMost(let multiple) where multiple > 0 && model.isStandardized:
      let factor = (Double(model.width) / square).squareRoot()
      if multiple * factor < 1 { for c in 0..<stride { token[c] = Float(Double(token[c]) * factor) } }
      return true
    case .atMost: return square <= Double(Float.greatestFiniteMagnitude)
    case .comparable: return square < Self.largestComparable
    case .encodable:
      let largest = square.squareRoot() * model.largestEncoderRow + model.largestBias
      return largest < Double(Float.greatestFiniteMagnitude)
    }
  }
}

extension ModelParameters {
  /// Norm of the encoder's longest row, and its largest bias, with BatchNorm. For few tokens: nothing remembers it.
  fileprivate var largestEncoderRow: Double {
    (0..<concepts).reduce(0) {
      max($0, Double(abs(affine($1).scale)) * Double(rowNorm(encoderWeight.value.row($1), encoderWeight.value.stride)))
    }
  }

  fileprivate var largestBias: Double { (0..<concepts).reduce(0) { max($0, Double(abs(affine($1).bias))) } }
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
