/// Weights of the models' losses in a step, by encoder.
///
/// The encoded model's own is `Recipe.sameModelWeight`, the others' is 1, and all are divided by their mean. So the whole loss
/// of codes that say nothing does not depend on the weight, and without a second model there is no weight. Where all are equal
/// they are 1 exactly.
struct LossWeights {
  /// The model that each seat encodes.
  let encoders: [Int]
  let same, other: Double

  init(_ recipe: Recipe, encoders: [Int], models: Int) {
    self.encoders = encoders
    let sum = recipe.sameModelWeight + Double(models - 1)
    same = recipe.sameModelWeight * Double(models) / sum
    other = Double(models) / sum
  }

  func weight(seat: Int, target: Int) -> Double { encoders[seat] == target ? same : other }
}
