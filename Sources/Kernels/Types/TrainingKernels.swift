/// Which elementwise loss: its value is a sum of |r| or of r².
public let absoluteLoss: Int32 = 0
public let squaredLoss: Int32 = 1

/// What AdamW needs for one tensor in one step; the same for all its elements.
public struct AdamConstants {
  public var beta1, beta2: Float
  /// Learning rate over the bias correction of the first moment.
  public var stepSize: Float
  /// One over the square root of the bias correction of the second moment.
  public var inverseRootCorrection: Float
  public var epsilon: Float
  /// What decoupled weight decay leaves of a parameter: 1 - rate * decay.
  public var keep: Float
  /// Gradients are multiplied by this first (clipping).
  public var gradientScale: Float

  public init(
    beta1: Float, beta2: Float, stepSize: Float, inverseRootCorrection: Float, epsilon: Float, keep: Float,
    gradientScale: Float
  ) {
    self.beta1 = beta1
    self.beta2 = beta2
    self.stepSize = stepSize
    self.inverseRootCorrection = inverseRootCorrection
    self.epsilon = epsilon
    self.keep = keep
    self.gradientScale = gradientScale
  }
}

/// The elementwise parts of a training step.
public struct TrainingKernels: @unchecked Sendable {
  /// Sum of the loss over a row of residuals.
  public typealias Loss = @convention(c) (_ which: Int32, _ residual: ConstantFloats, _ columns: Int) -> Float
  /// out = a * dLoss/dresidual. `out` may be `residual`.
  public typealias Slope =
    @convention(c) (_ which: Int32, _ a: Float, _ residual: ConstantFloats, _ columns: Int, _ out: Floats) -> Void
  /// One AdamW update. `constants` points to `AdamConstants`.
  public typealias Adam =
    @convention(c) (
      _ constants: UnsafeRawPointer, _ gradient: ConstantFloats, _ firstMoment: Floats, _ secondMoment: Floats,
      _ parameter: Floats, _ columns: Int
    ) -> Void

  public var loss: Loss
  public var slope: Slope
  public var adam: Adam

  public init(loss: @escaping Loss, slope: @escaping Slope, adam: @escaping Adam) {
    self.loss = loss
    self.slope = slope
    self.adam = adam
  }
}
