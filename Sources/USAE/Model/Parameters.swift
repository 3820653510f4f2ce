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
  /// Standardised tokens are (activations - mean) * inverseScale; all three are [1, width].
  let mean, scale, inverseScale: PaddedMatrix
  let encoderWeight: Trainable  // [n_concepts, width]
  let encoderBias: Trainable  // [1, n_concepts]
  let batchNorm: BatchNormParameters?
  /// With BatchTopK, [1, 1]: outside training, the entries of a code are larger than this; 0 before the first step.
  let threshold: PaddedMatrix?
  let dictionary: Trainable  // [n_concepts, width]
  /// 1 / (norm of the dictionary row + epsilon), [n_concepts]: rows are multiplied by it where they are used.
  let inverseNorms: FloatBuffer
  /// Tokens encoded since a concept last fired.
  let silentTokens: AlignedBuffer<Int64>
  var encoderSteps = 0
  var dictionarySteps = 0
  var tokens = 0

  init(name: String, width: Int, concepts: Int, batchNorm: Bool, batchTopK: Bool) throws(USAEError) {
    self.name = name
    self.width = width
    self.concepts = concepts
    mean = try PaddedMatrix(rows: 1, columns: width)
    scale = try PaddedMatrix(rows: 1, columns: width)
    inverseScale = try PaddedMatrix(rows: 1, columns: width)
    encoderWeight = try Trainable(rows: concepts, columns: width)
    encoderBias = try Trainable(rows: 1, columns: concepts)
    self.batchNorm = batchNorm ? try BatchNormParameters(concepts: concepts) : nil
    threshold = batchTopK ? try PaddedMatrix(rows: 1, columns: 1) : nil
    dictionary = try Trainable(rows: concepts, columns: width)
    inverseNorms = try FloatBuffer(concepts)
    silentTokens = try AlignedBuffer<Int64>(concepts)
    setScale { _ in 1 }
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
  }

  func updateInverseNorms(epsilon: Double, work: InterruptibleWork) {
    work.runToEnd((concepts + 255) / 256) { block, _ in
      for c in block * 256..<min(self.concepts, block * 256 + 256) {
        self.updateInverseNorm(of: c, epsilon: epsilon)
      }
    }
  }

  @inline(__always)
  func updateInverseNorm(of concept: Int, epsilon: Double) {
    let row = dictionary.value.row(concept)
    inverseNorms.base[concept] = 1 / (kernels.rows.dot(row, row, dictionary.value.stride).squareRoot() + Float(epsilon))
  }
}
