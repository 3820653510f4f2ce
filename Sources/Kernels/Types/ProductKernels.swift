/// Pre-activations in float32, by blocks of tokens and panels of concepts.
public struct ProductKernels: @unchecked Sendable {
  /// Pre-activations of `rows` tokens, up to `tokensPerBlock`, for `panelWidth` concepts. Each is an **exact dot product**: it
  /// starts from the bias and adds one product after the other over the depth, in order, each by a multiply-add that is fused
  /// where the processor has one. So its bits depend on nothing else.
  public typealias Block =
    @convention(c) (
      _ depth: Int, _ tokens: ConstantFloats, _ panel: ConstantFloats, _ bias: ConstantFloats, _ rows: Int, _ out: Floats,
      _ outStride: Int
    ) -> Void
  /// Pairs of a token and a concept with a pre-activation above the token's search threshold, until the list is full.
  /// `arguments` points to `ProductArguments`, whose `pairs` tell how far the search came.
  public typealias PairsAbove = @convention(c) (_ arguments: UnsafeMutableRawPointer) -> Void
  /// Rearranges tokens for `Block`: out [depth, tokensPerBlock].
  public typealias PackTokens =
    @convention(c) (_ first: ConstantFloats, _ stride: Int, _ rows: Int, _ depth: Int, _ out: Floats) -> Void
  /// Rearranges encoder rows for `Block`, each times its scale if there is one: out [depth, panelWidth].
  public typealias PackPanel =
    @convention(c) (
      _ first: ConstantFloats, _ stride: Int, _ rows: Int, _ depth: Int, _ scales: ConstantFloats?, _ out: Floats
    ) -> Void

  public var tokensPerBlock: Int
  public var panelWidth: Int
  public var block: Block
  public var pairsAbove: PairsAbove
  public var packTokens: PackTokens
  public var packPanel: PackPanel

  public init(
    tokensPerBlock: Int, panelWidth: Int, block: @escaping Block, pairsAbove: @escaping PairsAbove,
    packTokens: @escaping PackTokens, packPanel: @escaping PackPanel
  ) {
    self.tokensPerBlock = tokensPerBlock
    self.panelWidth = panelWidth
    self.block = block
    self.pairsAbove = pairsAbove
    self.packTokens = packTokens
    self.packPanel = packPanel
  }
}

/// What `ProductKernels.PairsAbove` reads and writes: pre-activations of packed tokens [count / tokensPerBlock, depth,
/// tokensPerBlock] for packed panels [columns / panelWidth, depth, panelWidth]; the last block of tokens is whole, and its
/// places past `count` may hold anything.
public struct ProductArguments {
  public var depth, columns, count: Int
  public var tokens, panels, bias, thresholds: ConstantFloats
  public var pairs: FoundPairs

  public init(
    depth: Int, columns: Int, count: Int, tokens: ConstantFloats, panels: ConstantFloats, bias: ConstantFloats,
    thresholds: ConstantFloats, pairs: FoundPairs
  ) {
    self.depth = depth
    self.columns = columns
    self.count = count
    self.tokens = tokens
    self.panels = panels
    self.bias = bias
    self.thresholds = thresholds
    self.pairs = pairs
  }
}
