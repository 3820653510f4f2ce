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
  private let centred: PaddedMatrix

  init(rows: Int, width: Int, concepts: Int) throws(USAEError) {
    mean = try PaddedMatrix(rows: 1, columns: width)
    weightCovariance = try PaddedMatrix(rows: concepts, columns: width)
    outputMean = try FloatBuffer(concepts)
    outputVariance = try FloatBuffer(concepts)
    covariance = try PaddedMatrix(rows: width, columns: width)
    centred = try PaddedMatrix(rows: rows, columns: width)
  }

  func inverseDeviation(_ concept: Int) -> Float {
    1 / (outputVariance.base[concept] + BatchNormParameters.epsilon).squareRoot()
  }

  func compute(_ tokens: PaddedMatrix, count: Int, model: ModelParameters, work: Work) throws(USAEError) {
    try tokens.columnMeans(count, blocks: Self.sumRows, to: mean.base, work: work)
    try computeCovariance(tokens, count: count, of: count, work: work)
    try computeOutputs(model, work: work)
  }

  /// Rows of a float32 sum.
  static let sumRows = 256

  /// The part that `count` tokens have in the covariance about `mean` of a batch of `total`.
  func computeCovariance(_ tokens: PaddedMatrix, count: Int, of total: Int, work: Work) throws(USAEError) {
    try work.runBlocks(count, of: 64) { _, range, _ in
      for t in range {
        let row = self.centred.row(t)
        row.update(from: tokens.row(t), count: tokens.stride)
        kernels.addScaled(-1, self.mean.base, tokens.stride, row)
      }
    }
    try BLAS.exclusively { () throws(USAEError) in try multiplyCentred(count: count, factor: 1 / Float(total), work: work) }
  }

  /// C, in slices of 128 rows that one thread computes over all tokens, from the diagonal on: C is symmetric.
  private func multiplyCentred(count: Int, factor: Float, work: Work) throws(USAEError) {
    let stride = centred.stride
    try work.runBlocks(covariance.rows, of: 128) { _, range, _ in
      let first = range.lowerBound
      BLAS.multiply(
        .init(base: self.centred.base + first, stride: stride, transposed: true),
        .init(base: self.centred.base + first, stride: stride), into: self.covariance.row(first) + first, stride: stride,
        rows: range.count, columns: stride - first, depth: count, accumulate: false)
      for r in range {
        for c in first..<stride { self.covariance.row(r)[c] *= factor }
      }
    }
    for r in 0..<covariance.rows {
      for c in 0..<r / 128 * 128 { covariance.row(r)[c] = covariance.row(c)[r] }
    }
  }

  /// Everything that follows from mean and covariance.
  func computeOutputs(_ model: ModelParameters, work: Work) throws(USAEError) {
    try BLAS.exclusively { () throws(USAEError) in try multiplyWeights(model, work: work) }
  }

  private func multiplyWeights(_ model: ModelParameters, work: Work) throws(USAEError) {
    let weight = model.encoderWeight.value
    let stride = weight.stride
    try work.runBlocks(weight.rows, of: 256) { _, range, _ in
      BLAS.multiply(
        .init(base: weight.row(range.lowerBound), stride: stride), .init(base: self.covariance.base, stride: stride),
        into: self.weightCovariance.row(range.lowerBound), stride: stride, rows: range.count, columns: stride,
        depth: weight.columns, accumulate: false)
      for c in range {
        let row = weight.row(c)
        self.outputMean.base[c] = kernels.dot(row, self.mean.base, stride) + model.encoderBias.value.base[c]
        // Rounding may leave a tiny negative number where the true variance is 0.
        self.outputVariance.base[c] = max(0, kernels.dot(row, self.weightCovariance.row(c), stride))
      }
    }
  }
}

extension ModelParameters {
  /// What stands between W x and ReLU, as a factor and a constant: BatchNorm by batch statistics if there are some, else by
  /// the running ones.
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
