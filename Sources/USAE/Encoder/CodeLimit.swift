/// What bounds a token's code outside training, where it must not depend on other tokens.
struct CodeLimit {
  /// Most entries.
  let most: Int
  /// Entries are larger than this.
  let threshold: Float

  static let none = CodeLimit(most: .max, threshold: 0)
}

extension ModelParameters {
  /// The k largest; with BatchTopK and once a step has set the threshold, all above it that fit into the slots.
  func codeLimit(k: Int, slots: Int) -> CodeLimit {
    guard let threshold, threshold.base[0] > 0 else { return CodeLimit(most: k, threshold: 0) }
    return CodeLimit(most: slots, threshold: threshold.base[0])
  }
}
