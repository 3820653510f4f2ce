/// How one thread selects the codes of a tile: the weights and the scratch memory of a mode. Codes are the same in both modes.
enum TopKSelector {
  /// Every pre-activation is computed.
  case product(PackedPanels, ProductSelection.Scratch)
  /// Bounds from int8 products rule out most concepts.
  case screening(ScreenedWeights, ScreenedSelection.Scratch)

  /// For each token the k largest pre-activations above `threshold`, which is 0 or more.
  func select(_ tokens: TokenRows, k: Int, above threshold: Float) -> SelectedKeys {
    switch self {
    case .product(let panels, let scratch): ProductSelection(tokens, panels, scratch).select(k: k, above: threshold)
    case .screening(let weights, let scratch): ScreenedSelection(tokens, k: k, above: threshold, weights, scratch).select()
    }
  }
}

/// One thread's memory for tiles, allocated by the first selection in each mode. It depends on the shape of the encoder alone.
final class TileScratch: @unchecked Sendable {
  private let columns, depth: Int
  private var product: ProductSelection.Scratch?
  private var screening: ScreenedSelection.Scratch?

  init(columns: Int, depth: Int) {
    self.columns = columns
    self.depth = depth
  }

  func forProduct() throws(USAEError) -> ProductSelection.Scratch {
    if let product { return product }
    let made = try ProductSelection.Scratch(columns: columns, depth: depth)
    product = made
    return made
  }

  func forScreening() throws(USAEError) -> ScreenedSelection.Scratch {
    if let screening { return screening }
    let made = try ScreenedSelection.Scratch(columns: columns, depth: depth)
    screening = made
    return made
  }
}
