/// What belongs to a token's code outside training, where it must not depend on other tokens.
struct CodeLimit {
  /// Most entries.
  let most: Int
  /// Entries are larger than this.
  let threshold: Float
}

extension ModelParameters {
  /// The k largest; with BatchTopK and once a step has set the threshold, all above it that fit into the slots.
  func codeLimit(k: Int, slots: Int) -> CodeLimit {
    guard let threshold, threshold.base[0] > 0 else { return CodeLimit(most: k, threshold: 0) }
    return CodeLimit(most: slots, threshold: threshold.base[0])
  }
}

extension PackedEncoder {
  /// Selects a token's code, at most `k` entries within the limit, as keys at the front of the tile's. Returns their number.
  func select(_ tile: EncoderTile, _ token: Int, k: Int) -> Int {
    guard let limit else { return tile.select(token, k: k) }
    return tile.select(token, k: min(k, limit.most), above: limit.threshold)
  }
}
