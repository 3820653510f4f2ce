/// What a step did.
public struct StepReport: Sendable, Equatable {
  /// Index of the encoded model.
  public let encoder: Int
  /// Steps done, this one included.
  public let step: Int
  /// Main losses and weighted auxiliary loss.
  public let loss: Double
  /// The main loss by target model; with prefixes the mean over them, or that of the drawn one.
  public let losses: [Double]
  /// The auxiliary loss without its coefficient.
  public let auxiliaryLoss: Double
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
