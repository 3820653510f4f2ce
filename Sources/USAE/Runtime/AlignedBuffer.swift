#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// Memory for `count` trivial elements, aligned to a cache line. It is zero at first, unless `zeroed` is false because the
/// owner writes it before it reads.
///
/// The only place where the library allocates raw memory; a failure is an error, because sizes come from callers.
final class AlignedBuffer<Element: BitwiseCopyable>: @unchecked Sendable {
  let count: Int
  let base: UnsafeMutablePointer<Element>

  init(_ count: Int, zeroed: Bool = true) throws(USAEError) {
    let (bytes, overflow) = max(count, 1).multipliedReportingOverflow(by: MemoryLayout<Element>.stride)
    var memory: UnsafeMutableRawPointer?
    guard !overflow, posix_memalign(&memory, 64, bytes) == 0, let memory else {
      throw .outOfMemory(bytes: overflow ? Int.max : bytes)
    }
    if zeroed { memset(memory, 0, bytes) }
    self.count = count
    base = memory.assumingMemoryBound(to: Element.self)
  }

  deinit { free(base) }

  func zero() { memset(base, 0, count * MemoryLayout<Element>.stride) }

  func fill(_ value: Element) { base.update(repeating: value, count: count) }

  func copy(from other: AlignedBuffer) { base.update(from: other.base, count: min(count, other.count)) }
}

typealias FloatBuffer = AlignedBuffer<Float>

/// Makes one buffer for each thread.
func makeScratch(_ threads: Int, _ count: Int) throws(USAEError) -> [FloatBuffer] {
  var scratch: [FloatBuffer] = []
  for _ in 0..<threads { scratch.append(try FloatBuffer(count)) }
  return scratch
}

/// Memory for trivial elements that can grow during a call that cannot fail: without memory the process ends, as with an array.
/// It is for lists whose first capacity suffices except for rare data.
final class GrowingBuffer<Element: BitwiseCopyable>: @unchecked Sendable {
  private(set) var count: Int
  private(set) var base: UnsafeMutablePointer<Element>

  init(_ count: Int) {
    self.count = count
    base = .allocate(capacity: count)
  }

  deinit { base.deallocate() }

  /// Grows to a capacity of at least `wanted` elements; keeps those that are there, and does not zero the others.
  func reserve(_ wanted: Int) {
    if wanted <= count { return }
    let capacity = max(wanted, count + count / 2)
    let larger = UnsafeMutablePointer<Element>.allocate(capacity: capacity)
    larger.update(from: base, count: count)
    base.deallocate()
    (base, count) = (larger, capacity)
  }
}

/// A matrix whose rows are padded with zeros to whole vectors of 16.
final class PaddedMatrix: @unchecked Sendable {
  let rows, columns, stride: Int
  let storage: FloatBuffer

  init(rows: Int, columns: Int) throws(USAEError) {
    self.rows = rows
    self.columns = columns
    stride = paddedWidth(columns)
    let (count, overflow) = rows.multipliedReportingOverflow(by: stride)
    guard !overflow else { throw .outOfMemory(bytes: Int.max) }
    storage = try FloatBuffer(count)
  }

  var base: UnsafeMutablePointer<Float> { storage.base }

  func row(_ index: Int) -> UnsafeMutablePointer<Float> { storage.base + index &* stride }
}

extension PaddedMatrix {
  /// Mean of each column over some rows.
  func columnMeans(
    _ rows: Range<Int>, blocks size: Int, to mean: UnsafeMutablePointer<Float>, work: InterruptibleWork
  ) throws(USAEError) {
    try columnSums(rows, blocks: size, work: work) { mean[$0] = Self.mean(ofSum: Float($1), rows: rows.count) }
  }

  /// The mean of a sum that is rounded to float32, as sums that processes exchange are: so one process has the bits of several.
  static func mean(ofSum sum: Float, rows: Int) -> Float { Float(Double(sum) / Double(rows)) }

  /// Sum of each column over some rows: float32 sums over blocks of rows, double over the blocks.
  func columnSums(
    _ rows: Range<Int>, blocks size: Int, work: InterruptibleWork, _ take: (_ column: Int, _ sum: Double) -> Void
  ) throws(USAEError) {
    let (blocks, first) = ((rows.count + size - 1) / size, rows.lowerBound)
    let partial = try FloatBuffer(blocks * stride)
    try work.runBlocks(rows.count, of: size) { block, range, _ in
      for row in range { kernels.rows.addScaled(1, self.row(first + row), self.stride, partial.base + block * self.stride) }
    }
    for c in 0..<stride {
      var sum = 0.0
      for block in 0..<blocks { sum += Double(partial.base[block * stride + c]) }
      take(c, sum)
    }
  }
}

/// The smallest multiple of 16 that holds `columns`.
func paddedWidth(_ columns: Int) -> Int { (columns &+ 15) & ~15 }
