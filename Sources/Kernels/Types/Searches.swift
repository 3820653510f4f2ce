/// Pairs of a token and a concept that a search finds: token << conceptBits | concept, and a number for each; a token's concepts
/// ascend.
public struct FoundPairs {
  public var pairs: UnsafeMutablePointer<Int32>
  public var conceptBits: Int32
  public var numbers: Floats
  /// Pairs there is room for: at least those of all tokens and a panel, and 16 more, since whole vectors are written, beyond what
  /// was found.
  public var room: Int
  /// How many there are, and the concept from which the search goes on.
  public var found = 0
  public var nextColumn = 0

  public init(pairs: UnsafeMutablePointer<Int32>, conceptBits: Int32, numbers: Floats, room: Int) {
    self.pairs = pairs
    self.conceptBits = conceptBits
    self.numbers = numbers
    self.room = room
  }
}

/// What `KernelTable.ProductAbove` reads and writes: pre-activations of packed tokens [count / tokensPerBlock, depth,
/// tokensPerBlock] for packed panels [columns / panelWidth, depth, panelWidth]; the last block of tokens is whole, with any
/// numbers past `count`.
public struct ProductArguments {
  public var depth, columns, count: Int
  public var tokens, panels, bias, floors: ConstantFloats
  public var pairs: FoundPairs

  public init(
    depth: Int, columns: Int, count: Int, tokens: ConstantFloats, panels: ConstantFloats, bias: ConstantFloats,
    floors: ConstantFloats, pairs: FoundPairs
  ) {
    self.depth = depth
    self.columns = columns
    self.count = count
    self.tokens = tokens
    self.panels = panels
    self.bias = bias
    self.floors = floors
    self.pairs = pairs
  }
}

/// What `ScreeningKernels.Screen` reads and writes.
///
/// The estimate of a pre-activation is bias + (start + sum of products of bytes) * token scale * concept scale, and the upper
/// bound estimate + (slack + factor of norm * norm + factor of error * error); no NaN.
public struct ScreenArguments {
  /// Four bytes along the depth are a quad. A multiple of 16.
  public var quads: Int
  /// Concepts: a multiple of `panelWidth`.
  public var columns: Int
  public var panels, starts: UnsafePointer<Int32>
  public var scales, bias, norms, errors, slacks: ConstantFloats
  /// Packed tokens: whole blocks, with anything in the last one's places past `count`.
  public var count: Int
  public var tokens: UnsafePointer<Int32>
  public var tokenScales, factorsOfNorm, factorsOfError, floors: ConstantFloats
  /// With estimates as numbers.
  public var pairs: FoundPairs
  /// [tokensPerBlock, panelWidth], which no two threads share.
  public var spare: UnsafeMutablePointer<Int32>

  public init(
    quads: Int, columns: Int, panels: UnsafePointer<Int32>, starts: UnsafePointer<Int32>, scales: ConstantFloats,
    bias: ConstantFloats, norms: ConstantFloats, errors: ConstantFloats, slacks: ConstantFloats, count: Int,
    tokens: UnsafePointer<Int32>, tokenScales: ConstantFloats, factorsOfNorm: ConstantFloats, factorsOfError: ConstantFloats,
    floors: ConstantFloats, pairs: FoundPairs, spare: UnsafeMutablePointer<Int32>
  ) {
    self.quads = quads
    self.columns = columns
    self.panels = panels
    self.starts = starts
    self.scales = scales
    self.bias = bias
    self.norms = norms
    self.errors = errors
    self.slacks = slacks
    self.count = count
    self.tokens = tokens
    self.tokenScales = tokenScales
    self.factorsOfNorm = factorsOfNorm
    self.factorsOfError = factorsOfError
    self.floors = floors
    self.pairs = pairs
    self.spare = spare
  }
}
