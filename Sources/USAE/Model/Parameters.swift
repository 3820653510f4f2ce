/// A trained tensor with the moments of AdamW, and its gradient where it is needed as a whole.
final class Trainable: @unchecked Sendable {
  let value: PaddedMatrix
  let firstMoment, secondMoment: PaddedMatrix
  /// Allocated where gradients must be complete before the first update: with clipping, the published AuxK, or a step that
  /// keeps gradients.
  private(set) var gradient: PaddedMatrix?

  init(rows: Int, columns: Int) throws(USAEError) {
    value = try PaddedMatrix(rows: rows, columns: columns)
    firstMoment = try PaddedMatrix(rows: rows, columns: columns)
    secondMoment = try PaddedMatrix(rows: rows, columns: columns)
  }

  func allocateGradient() throws(USAEError) {
    if gradient == nil { gradient = try PaddedMatrix(rows: value.rows, columns: value.columns) }
  }

  func dropGradient() { gradient = nil }
}

/// What BatchNorm adds to a linear encoder. Vectors are [1, n_concepts].
final class BatchNormParameters: @unchecked Sendable {
  static let epsilon: Float = 1e-5
  static let momentum: Float = 0.1

  let weight, bias: Trainable
  let runningMean, runningVariance: PaddedMatrix

  init(concepts: Int) throws(USAEError) {
    weight = try Trainable(rows: 1, columns: concepts)
    bias = try Trainable(rows: 1, columns: concepts)
    runningMean = try PaddedMatrix(rows: 1, columns: concepts)
    runningVariance = try PaddedMatrix(rows: 1, columns: concepts)
    for c in 0..<concepts {
      weight.value.base[c] = 1
      runningVariance.base[c] = 1
    }
  }
}

/// One model: its standardisation, encoder and dictionary, and how far they are trained.
final class ModelParameters: @unchecked Sendable {
  let name: String
  let width: Int
  let concepts: Int
  /// Standardised tokens are (activations - mean - meanRest) * inverseScale; all four are [1, width].
  ///
  /// `meanRest` is what float32 cannot hold of the mean. It is 0 but where that matters (`doubles`).
  let mean, meanRest, scale, inverseScale: PaddedMatrix
  /// The same numbers in double, where some dimension's mean is so large against its scale that float32 arithmetic would lose
  /// the tokens in rounding.
  private(set) var doubles: DoubleStandardization?
  /// Whether tokens are standardised at all, so that a typical one has the length of the square root of the width.
  private(set) var isStandardized = false
  /// What mean and scale were computed from; nil where they were set otherwise.
  var sample: SampleReport?
  /// [1, 1]; see `EffectiveDimensions`. The width where mean and scale were not computed from activations.
  let effectiveDimensions: PaddedMatrix
  let encoderWeight: Trainable  // [n_concepts, width]
  let encoderBias: Trainable  // [1, n_concepts]
  let batchNorm: BatchNormParameters?
  /// With BatchTopK, [1, 1]: outside training, the entries of a code are larger than this; 0 before the first step.
  let threshold: PaddedMatrix?
  /// With BatchTopK, [1, n_concepts]: what a concept's own threshold has above that. Training leaves it as it is.
  let thresholdRest: PaddedMatrix?
  let dictionary: Trainable  // [n_concepts, width]
  /// See `RowNorm`, [n_concepts]: the dictionary's rows are multiplied by it where they are used.
  let rowScales: FloatBuffer
  /// Norms of the dictionary's rows, [n_concepts].
  let rowNorms: FloatBuffer
  /// Tokens encoded since a concept last fired.
  let silentTokens: AlignedBuffer<Int64>
  var encoderSteps = 0
  var dictionarySteps = 0
  var tokens = 0
  /// Whether training leaves all of the above as it is: the encoder gives codes and the dictionary decodes them, no more.
  var isFrozen = false

  init(name: String, width: Int, concepts: Int, batchNorm: Bool, batchTopK: Bool) throws(USAEError) {
    self.name = name
    self.width = width
    self.concepts = concepts
    mean = try PaddedMatrix(rows: 1, columns: width)
    meanRest = try PaddedMatrix(rows: 1, columns: width)
    scale = try PaddedMatrix(rows: 1, columns: width)
    inverseScale = try PaddedMatrix(rows: 1, columns: width)
    encoderWeight = try Trainable(rows: concepts, columns: width)
    encoderBias = try Trainable(rows: 1, columns: concepts)
    self.batchNorm = batchNorm ? try BatchNormParameters(concepts: concepts) : nil
    threshold = batchTopK ? try PaddedMatrix(rows: 1, columns: 1) : nil
    thresholdRest = batchTopK ? try PaddedMatrix(rows: 1, columns: concepts) : nil
    dictionary = try Trainable(rows: concepts, columns: width)
    effectiveDimensions = try PaddedMatrix(rows: 1, columns: 1)
    effectiveDimensions.base[0] = Float(width)
    rowScales = try FloatBuffer(concepts)
    rowNorms = try FloatBuffer(concepts)
    silentTokens = try AlignedBuffer<Int64>(concepts)
    setScale { _ in 1 }
  }

  /// A model's standardisation in double, [width].
  struct DoubleStandardization {
    let center, inverseScale: [Double]
  }

  /// From this ratio of mean and scale on, float32 rounds the mean by more than 1/1024 of the scale.
  private static let largestRatio = 0x1p14

  static func needsDouble(center: (Int) -> Double, scale: (Int) -> Double, width: Int) -> Bool {
    (0..<width).contains { abs(center($0)) > largestRatio * scale($0) }
  }

  /// Parameters that a step with this model as encoder trains besides dictionaries.
  var encoderTrainables: [Trainable] {
    [encoderWeight, encoderBias] + (batchNorm.map { [$0.weight, $0.bias] } ?? [])
  }

  func setScale(_ value: (Int) -> Float) {
    for c in 0..<width {
      scale.base[c] = value(c)
      inverseScale.base[c] = 1 / scale.base[c]
    }
    standardizationChanged()
  }

  /// Sets mean and scale together, as sample statistics give them.
  func setStandardization(center: [Double], scale value: (Int) -> Float) {
    for c in 0..<width {
      mean.base[c] = Float(center[c])
      meanRest.base[c] = Float(center[c] - Double(mean.base[c]))
    }
    setScale(value)
    if doubles == nil { meanRest.storage.zero() }
  }

  /// To be called after every change of mean or scale.
  func standardizationChanged() {
    isStandardized = (0..<width).contains { mean.base[$0] != 0 || scale.base[$0] != 1 }
    let needed = Self.needsDouble(center: { Double(mean.base[$0]) }, scale: { Double(scale.base[$0]) }, width: width)
    doubles =
      needed
      ? DoubleStandardization(
        center: (0..<width).map { Double(mean.base[$0]) + Double(meanRest.base[$0]) },
        inverseScale: (0..<width).map { 1 / Double(scale.base[$0]) }) : nil
  }

  /// A decoded token in the model's own units, in double.
  func rescale(_ token: UnsafePointer<Float>, to out: UnsafeMutablePointer<Float>) {
    for c in 0..<width {
      let center = Double(mean.base[c]) + Double(meanRest.base[c])
      out[c] = Float(Double(token[c]) * Double(scale.base[c]) + center)
    }
  }

  func updateRowScales(_ norm: RowNorm, work: InterruptibleWork) {
    work.runToEnd((concepts + 255) / 256) { block, _ in
      for c in block * 256..<min(self.concepts, block * 256 + 256) {
        self.updateRowScale(of: c, norm)
      }
    }
  }

  @inline(__always)
  func updateRowScale(of concept: Int, _ norm: RowNorm) {
    rowNorms.base[concept] = rowNorm(dictionary.value.row(concept), dictionary.value.stride)
    rowScales.base[concept] = norm.scale(rowNorms.base[concept])
  }
}

/// Euclidean norm of a padded row, also where its square leaves the range of float32.
@inline(__always)
func rowNorm(_ row: UnsafePointer<Float>, _ stride: Int) -> Float {
  let square = kernels.rows.dot(row, row, stride)
  return square.isNormal ? square.squareRoot() : exactNorm(row, stride)
}

@inline(never)
private func exactNorm(_ row: UnsafePointer<Float>, _ stride: Int) -> Float {
  var square = 0.0
  for c in 0..<stride { square += Double(row[c]) * Double(row[c]) }
  return Float(square.squareRoot())
}
