#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension Recipe {
  /// Fewer effective dimensions count as so many: models of widths up to 128 with 6 to 13 of them learn less at the rate that
  /// these would ask for.
  private static let fewestDimensions = 32.0

  /// Learning rate of a model in the constant part of the schedule.
  func learningRate(of model: ModelParameters) -> Double {
    guard stepLimit > 0 else { return learningRate }
    let dimensions = max(Self.fewestDimensions, Double(model.effectiveDimensions.base[0]))
    return min(learningRate, stepLimit * dimensions.squareRoot() / Double(model.width))
  }

  /// Learning rate of a model in the step after `step` others.
  func learningRate(at step: Int, of model: ModelParameters) -> Double {
    let learningRate = learningRate(of: model)
    if step == 0, firstStepFull { return learningRate }
    if step < warmupSteps {
      let steps = warmupInclusive ? max(1, warmupSteps - 1) : warmupSteps
      return warmupLearningRate + (learningRate - warmupLearningRate) * Double(step) / Double(steps)
    }
    guard totalSteps > 0, schedule != .constant else { return learningRate }
    let start = max(warmupSteps, Int(Double(totalSteps) * (1 - decayShare)))
    guard step >= start else { return learningRate }
    guard start < totalSteps else { return finalLearningRate }
    let progress = min(1, Double(step - start) / Double(totalSteps - start))
    switch schedule {
    case .linear: return learningRate + (finalLearningRate - learningRate) * progress
    default: return finalLearningRate + (learningRate - finalLearningRate) * (1 + cos(Double.pi * progress)) / 2
    }
  }
}
