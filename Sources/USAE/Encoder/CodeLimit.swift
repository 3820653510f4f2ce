/// What bounds a token's code outside training, where it must not depend on other tokens.
struct CodeLimit {
  /// The most entries of a code.
  let most: Int
  /// Entries are larger than this.
  let threshold: Float

  static let none = CodeLimit(most: .max, threshold: 0)
}

extension ModelParameters {
  /// A code has the k largest entries. With BatchTopK, once a step has set the threshold, it has all entries above it that fit
  /// into the slots.
  func codeLimit(k: Int, slots: Int) -> CodeLimit {
    guard let threshold, threshold.base[0] > 0 else { return CodeLimit(most: k, threshold: 0) }
    return CodeLimit(most: slots, threshold: threshold.base[0])
  }
}
