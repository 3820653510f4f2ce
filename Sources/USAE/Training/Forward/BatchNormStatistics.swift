/// Mean and variance of the encoder's outputs over a batch, without the outputs.
///
/// For W x + b over a batch with mean mu and covariance C (biased), the mean is W mu + b and the variance diag(W C W^T).
/// The backward pass of BatchNorm needs W C once more, so it is kept. docs/method.md derives both.
final class BatchStatistics: @unchecked Sendable {
  let mean: PaddedMatrix  // [1, width], of the standardised tokens
  let weightCovariance: PaddedMatrix  // W C, [n_concepts, width]
  let outputMean: FloatBuffer  // [n_concepts]
  let outputVariance: FloatBuffer  // [n_concepts], biased
  let covariance: PaddedMatrix  // [width, width], biased
  private let centred: PaddedMatrix  // [productTokens + 1, width]; of the last row nothing is used
  private let tokenProduct, weightProduct: TiledProduct

  init(rows: Int, width: Int, concepts: Int, threads: Int) throws(USAEError) {
    mean = try PaddedMatrix(rows: 1, columns: width)
    weightCovariance = try PaddedMatrix(rows: concepts, columns: width)
    outputMean = try FloatBuffer(concepts)
    outputVariance = try FloatBuffer(concepts)
    covariance = try PaddedMatrix(rows: width, columns: width)
    centred = try PaddedMatrix(rows: min(rows, Self.productTokens) + 1, columns: width)
    tokenProduct = try TiledProduct(columns: width, depth: Self.productTokens, threads: threads)
    weightProduct = try TiledProduct(columns: width, depth: width, threads: threads)
  }

  /// False where squares of activations overflow float32, as they do from some 1e19 on.
  var isFinite: Bool {
    (0..<outputVariance.count).allSatisfy { outputMean.base[$0].isFinite && outputVariance.base[$0].isFinite }
  }

  func inverseDeviation(_ concept: Int) -> Float { Self.inverseDeviation(variance: outputVariance.base[concept]) }

  @inline(__always)
  static func inverseDeviation(variance: Float) -> Float { 1 / (variance + BatchNormParameters.epsilon).squareRoot() }

  func compute(_ tokens: PaddedMatrix, count: Int, model: ModelParameters, work: InterruptibleWork) throws(USAEError) {
    try tokens.columnMeans(0..<count, blocks: Self.sumRows, to: mean.base, work: work)
    try computeCovariance(tokens, count: count, of: count, work: work)
    try computeOutputs(model, work: work)
  }

  /// Tokens of a float32 sum.
  static let sumRows = 256
  /// Tokens of a float32 sum of products.
  private static let productTokens = 1024

  /// Computes the part that these `count` tokens have in the covariance C about `mean` of a batch of `total` tokens. C is
  /// symmetric, so only elements from the diagonal on are computed, as sums over a thousand tokens that are added up in order.
  func computeCovariance(_ tokens: PaddedMatrix, count: Int, of total: Int, work: InterruptibleWork) throws(USAEError) {
    covariance.storage.zero()
    for first in Swift.stride(from: 0, to: count, by: Self.productTokens) {
      let part = first..<min(count, first + Self.productTokens)
      try centre(tokens, part, work: work)
      try addProduct(count: part.count, work: work)
    }
    let factor = 1 / Float(total)
    for r in 0..<covariance.rows {
      for c in r..<covariance.rows { covariance.row(r)[c] *= factor }
      for c in 0..<r { covariance.row(r)[c] = covariance.row(c)[r] }
    }
  }

  private func centre(_ tokens: PaddedMatrix, _ part: Range<Int>, work: InterruptibleWork) throws(USAEError) {
    try work.runBlocks(part.count, of: 64) { _, range, _ in
      for t in range {
        let row = self.centred.row(t)
        row.update(from: tokens.row(part.lowerBound + t), count: tokens.stride)
        kernels.rows.addScaled(-1, self.mean.base, tokens.stride, row)
      }
    }
  }

  /// Adds the product of the first `count` centred tokens with themselves.
  private func addProduct(count: Int, work: InterruptibleWork) throws(USAEError) {
    let block = TiledProduct.blockRows
    precondition(block <= 16)
    let stride = centred.stride &* MemoryLayout<Float>.stride
    tokenProduct.take(centred.base, stride: centred.stride, depth: count, work: work)
    try work.runBlocks(covariance.rows, of: block) { _, range, worker in
      let column = self.centred.base + range.lowerBound
      self.tokenProduct.rows(range.count, from: range.lowerBound, worker: worker) { out in
        // Copies whole vectors: what is written past a block is overwritten by the next one, and what is read past the last
        // column is not used.
        var (source, target) = (UnsafeRawPointer(column), UnsafeMutableRawPointer(out))
        for _ in 0..<count {
          target.storeBytes(of: source.loadUnaligned(as: SIMD16<Float>.self), as: SIMD16<Float>.self)
          source += stride
          target += block &* MemoryLayout<Float>.stride
        }
      } use: { row, column, values, count in
        let out = self.covariance.row(range.lowerBound + row) + column
        for c in 0..<count { out[c] += values[c] }
      }
    }
  }

  /// Computes everything that follows from mean and covariance.
  func computeOutputs(_ model: ModelParameters, work: InterruptibleWork) throws(USAEError) {
    let weight = model.encoderWeight.value
    let stride = weight.stride
    weightProduct.take(covariance.base, stride: covariance.stride, depth: weight.columns, work: work)
    try work.runBlocks(weight.rows, of: TiledProduct.blockRows) { _, range, worker in
      self.weightProduct.rows(range.count, from: 0, worker: worker) {
        kernels.product.packTokens(weight.row(range.lowerBound), stride, range.count, weight.columns, $0)
      } use: {
        (self.weightCovariance.row(range.lowerBound + $0) + $1).update(from: $2, count: $3)
      }
      for c in range {
        let row = weight.row(c)
        self.outputMean.base[c] = kernels.rows.dot(row, self.mean.base, stride) + model.encoderBias.value.base[c]
        // Rounding can leave a tiny negative number where the true variance is 0, and overflow can leave NaN.
        let variance = kernels.rows.dot(row, self.weightCovariance.row(c), stride)
        self.outputVariance.base[c] = variance.isFinite ? max(0, variance) : .infinity
      }
    }
  }
}

extension ModelParameters {
  /// What is applied to W x before ReLU, as a factor and a constant: the bias and BatchNorm, with the batch's statistics if
  /// given, else with the running ones.
  func affine(_ concept: Int, batch: BatchStatistics? = nil) -> (scale: Float, bias: Float) {
    let bias = encoderBias.value.base[concept]
    guard let batchNorm else { return (1, bias) }
    let inverse =
      batch?.inverseDeviation(concept)
      ?? 1 / (batchNorm.runningVariance.base[concept] + BatchNormParameters.epsilon).squareRoot()
    let mean = batch?.outputMean.base[concept] ?? batchNorm.runningMean.base[concept]
    let scale = batchNorm.weight.value.base[concept] * inverse
    return (scale, batchNorm.bias.value.base[concept] + scale * (bias - mean))
  }
}
