/// Up to this many keys are sorted by counting larger ones. More are sorted by a heap, since counting takes time that is
/// quadratic in their number.
public let mostRankedKeys = 192
/// Places behind its keys that `SelectionKernels.KeepLargest` may write to: the sorted keys, and padding to whole vectors.
public let selectionScratch = mostRankedKeys + 32

/// The largest elements of a row. The kernels' `Selection.swift` says what a selection key is.
public struct SelectionKernels: @unchecked Sendable {
  /// Writes the keys of the elements above a threshold >= 0 and returns how many there are.
  public typealias Scan =
    @convention(c) (
      _ row: ConstantFloats, _ columns: Int, _ threshold: Float, _ keys: UnsafeMutablePointer<UInt64>
    ) -> Int
  /// Moves the `wanted` largest of `count` keys to the front.
  public typealias Partition = @convention(c) (_ keys: UnsafeMutablePointer<UInt64>, _ count: Int, _ wanted: Int) -> Void
  /// Moves the `wanted` largest of `count` keys to the front, largest first, and returns how many there are. The keys' buffer
  /// has capacity for `selectionScratch` more.
  public typealias KeepLargest = @convention(c) (_ keys: UnsafeMutablePointer<UInt64>, _ count: Int, _ wanted: Int) -> Int
  /// The smallest of the `wanted` largest values, or 0 where fewer are positive; NaN counts as not positive. A vector behind
  /// the values is overwritten.
  public typealias SmallestOfLargest = @convention(c) (_ values: Floats, _ count: Int, _ wanted: Int) -> Float

  public var scan: Scan
  public var partition: Partition
  public var keepLargest: KeepLargest
  public var smallestOfLargest: SmallestOfLargest

  public init(
    scan: @escaping Scan, partition: @escaping Partition, keepLargest: @escaping KeepLargest,
    smallestOfLargest: @escaping SmallestOfLargest
  ) {
    self.scan = scan
    self.partition = partition
    self.keepLargest = keepLargest
    self.smallestOfLargest = smallestOfLargest
  }
}
