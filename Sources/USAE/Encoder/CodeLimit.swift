/// What bounds a token's code outside training, where it must not depend on other tokens.
struct CodeLimit {
  /// The most entries of a code.
  let most: Int
  /// Entries are larger than this.
  let threshold: Float
  /// Those of a concept are larger than its own threshold, [n_concepts], where concepts have some.
  var ofConcepts: FloatBuffer?

  static let none = CodeLimit(most: .max, threshold: 0)
}

extension ModelParameters {
  /// A code has the k largest entries. With BatchTopK, once a step has set the threshold, it has all entries above it that fit
  /// into the slots; each concept may have a threshold that is higher.
  func codeLimit(k: Int, slots: Int) throws(USAEError) -> CodeLimit {
    guard let threshold, threshold.base[0] > 0 else { return CodeLimit(most: k, threshold: 0) }
    var limit = CodeLimit(most: slots, threshold: threshold.base[0])
    if let rest = thresholdRest, (0..<concepts).contains(where: { rest.base[$0] > 0 }) {
      let own = try FloatBuffer(concepts)
      for c in 0..<concepts { own.base[c] = threshold.base[0] + rest.base[c] }
      limit.ofConcepts = own
    }
    return limit
  }
}
