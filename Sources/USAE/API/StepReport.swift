/// What a step did.
public struct StepReport: Sendable, Equatable {
  /// Indices of the encoded models. What a report says of one model is of the first.
  public let encoders: [Int]
  /// Steps done, this one included.
  public let step: Int
  /// Main losses, weighted auxiliary loss and weighted agreement; means over the encoders.
  public let loss: Double
  /// The main loss by encoder, in the order of `encoders`, and target model, NaN for models that the batch does not have; with
  /// prefixes the mean over them, or that of the drawn one.
  public let losses: [[Double]]
  /// The auxiliary loss without its coefficient.
  public let auxiliaryLoss: Double
  /// The agreement term without its weight; 0 where the loss has none.
  public let agreement: Double
  /// Mean number of active concepts.
  public let l0: Double
  public let learningRate: Double
  /// Gradient norm of the encoded model before clipping; NaN where the step does not need it.
  public let gradientNorm: Double
  /// Concepts dead in the encoded model before this step.
  public let deadConcepts: Int
  /// Concepts that had to reconstruct: all, or the first of them where the recipe draws a prefix.
  public let prefix: Int
  /// What screening did; no tokens where codes were selected by the product.
  public let screening: ScreeningCounts
}

extension StepReport {
  /// The first encoded model.
  public var encoder: Int { encoders[0] }
}
