#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension Recipe {
  /// Learning rate of a model in the constant part of the schedule.
  func learningRate(of model: ModelParameters) -> Double {
    guard stepLimit > 0 else { return learningRate }
    return min(learningRate, stepLimit * Double(model.effectiveDimensions.base[0]).squareRoot() / Double(model.width))
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
