/// Pairs of a token and a concept that a search finds: token << conceptBits | concept, and a number for each; a token's
/// concepts ascend.
public struct FoundPairs {
  public var pairs: UnsafeMutablePointer<Int32>
  public var conceptBits: Int32
  public var numbers: Floats
  /// Capacity in pairs. Each call needs free space for one panel of every token, and 16 more, because whole vectors
  /// are written.
  public var capacity: Int
  /// How many there are, and the concept from which the search continues.
  public var found = 0
  public var nextColumn = 0

  public init(pairs: UnsafeMutablePointer<Int32>, conceptBits: Int32, numbers: Floats, capacity: Int) {
    self.pairs = pairs
    self.conceptBits = conceptBits
    self.numbers = numbers
    self.capacity = capacity
  }
}
