import KernelTypes

/// The codes of a tile's tokens as selection keys: for each token at most `k`, of the largest pre-activations above a
/// threshold, largest first.
///
/// The keys lie in a thread's scratch memory, which the thread's next selection overwrites.
struct SelectedKeys {
  let k: Int
  let threshold: Float
  /// What screening did to find them.
  let counts: ScreeningCounts
  fileprivate let keys: UnsafeMutablePointer<UInt64>
  /// Token t's keys are keys[bounds[t]..<bounds[t + 1]].
  fileprivate let bounds: UnsafeMutablePointer<Int>

  @inline(__always) subscript(token: Int) -> UnsafeBufferPointer<UInt64> {
    UnsafeBufferPointer(start: keys + bounds[token], count: bounds[token &+ 1] &- bounds[token])
  }

  /// Keeps the k largest keys of each token among those above their concept's threshold. The others are overwritten.
  func kept(_ k: Int, above thresholds: FloatBuffer, tokens: Int) -> SelectedKeys {
    var (end, first) = (0, bounds[0])
    for token in 0..<tokens {
      let (start, last) = (end, bounds[token + 1])
      for i in first..<last {
        let own = keys[i]
        guard end - start < k else { break }
        keys[end] = own
        end += value(ofKey: own) > thresholds.base[Int(column(ofKey: own))] ? 1 : 0
      }
      (first, bounds[token], bounds[token + 1]) = (last, start, end)
    }
    return SelectedKeys(k: k, threshold: threshold, counts: counts, keys: keys, bounds: bounds)
  }

  /// Whether a token's code has every concept with a positive pre-activation.
  @inline(__always) func hasAllPositive(_ token: Int) -> Bool { threshold == 0 && self[token].count < k }
}

/// Memory in which one thread puts together the keys of a tile, token after token.
final class KeyLists: @unchecked Sendable {
  private let keys: GrowingBuffer<UInt64>
  private let bounds: AlignedBuffer<Int>
  private var used = 0
  private var tokens = 0

  /// - Parameter capacity: most tokens of a tile.
  init(capacity: Int) throws(USAEError) {
    keys = GrowingBuffer(64 * capacity + selectionScratch)
    bounds = try AlignedBuffer<Int>(capacity + 1)
  }

  func clear() { (used, tokens) = (0, 0) }

  /// Adds concepts to the list of the next token: those with a value above the threshold and a key below `key`.
  @inline(__always)
  func add(
    _ concepts: UnsafePointer<Int32>, _ values: UnsafePointer<Float>, _ count: Int, above threshold: Float,
    below key: UInt64 = .max
  ) {
    keys.reserve(used + count + selectionScratch)  // the kernel that sorts writes past the end
    let base = keys.base
    var end = used
    for i in 0..<count {
      let own = selectionKey(values[i], concepts[i])
      // Always written, kept if wanted: a branch would be mispredicted half of the time.
      base[end] = own
      end &+= (values[i] > threshold ? 1 : 0) & (own < key ? 1 : 0)
    }
    used = end
  }

  /// Ends the list of a token and keeps its k largest keys.
  func endToken(k: Int) {
    let first = bounds.base[tokens]
    used = first + kernels.selection.keepLargest(keys.base + first, used - first, k)
    tokens += 1
    bounds.base[tokens] = used
  }

  func selected(k: Int, above threshold: Float, counts: ScreeningCounts = ScreeningCounts()) -> SelectedKeys {
    SelectedKeys(k: k, threshold: threshold, counts: counts, keys: keys.base, bounds: bounds.base)
  }
}
