/// Pairs of a token and a concept that a search finds: token << conceptBits | concept, and a number for each; a token's
/// concepts ascend.
public struct FoundPairs {
  public var pairs: UnsafeMutablePointer<Int32>
  public var conceptBits: Int32
  public var numbers: Floats
  /// The most pairs that fit. Beyond what was found, that is at least those of all tokens and a panel, and 16 more, since whole
  /// vectors are written.
  public var capacity: Int
  /// How many there are, and the concept from which the search goes on.
  public var found = 0
  public var nextColumn = 0

  public init(pairs: UnsafeMutablePointer<Int32>, conceptBits: Int32, numbers: Floats, capacity: Int) {
    self.pairs = pairs
    self.conceptBits = conceptBits
    self.numbers = numbers
    self.capacity = capacity
  }
}
