/// The sum of an exchange, as the caller has added it up, and the checks of its numbers.
///
/// They are other processes' numbers. One that failed sends zeros, and one whose memory, network or program is at fault can
/// send anything, so nothing of a sum is used before it was checked. All processes have the same sums, so all refuse the same.
struct SharedSum {
  let exchange: SharedExchange
  let numbers: UnsafeBufferPointer<Float>

  init(_ exchange: SharedExchange, _ numbers: UnsafeBufferPointer<Float>) throws(USAEError) {
    try exchange.check(numbers.count)
    self.exchange = exchange
    self.numbers = numbers
  }

  func refuse(_ expected: String, got: String) -> USAEError {
    .invalidArgument(
      name: "sum of \(exchange.kind)", expected: expected, got: got,
      remedy: "nothing was changed: one process failed, or what is summed is not what shared_fill wrote")
  }

  // MARK: Numbers

  func requireFinite(work: InterruptibleWork? = nil) throws(USAEError) {
    try requireFinite(0..<numbers.count, work: work)
  }

  /// - Parameter work: shares the numbers of a large sum among threads.
  func requireFinite(_ range: Range<Int>, work: InterruptibleWork? = nil) throws(USAEError) {
    let bad = LockProtected<Int?>(nil)
    func look(_ part: Range<Int>) {
      guard !isFinite(part), let place = part.first(where: { !numbers[$0].isFinite }) else { return }
      bad.withLock { $0 = min($0 ?? place, place) }
    }
    if let work {
      work.runToEnd((range.count + Self.block - 1) / Self.block) { block, _ in
        let first = range.lowerBound + block * Self.block
        look(first..<min(range.upperBound, first + Self.block))
      }
    } else {
      look(range)
    }
    if let place = bad.withLock({ $0 }) { throw .sumNotFinite(exchange: "\(exchange.kind)", position: place) }
  }

  private static let block = 1 << 16

  /// Adds up x - x, which is 0, or NaN from the first number that is not finite: one pass at the speed of memory.
  private func isFinite(_ range: Range<Int>) -> Bool {
    guard let base = numbers.baseAddress else { return true }
    var sums = SIMD16<Float>.zero
    var place = range.lowerBound
    while place &+ 16 <= range.upperBound {
      let vector = UnsafeRawPointer(base + place).loadUnaligned(as: SIMD16<Float>.self)
      sums += vector - vector
      place &+= 16
    }
    var sum = sums.sum()
    for rest in place..<range.upperBound { sum += base[rest] - base[rest] }
    return sum == 0
  }

  func requireNotNegative(_ range: Range<Int>) throws(USAEError) {
    for place in range where numbers[place] < 0 {
      throw refuse("numbers from 0 up", got: "\(numbers[place]) at position \(place)")
    }
  }

  // MARK: Counts

  /// The numbers of a range as counts of `most` things at most, all together or each.
  ///
  /// Floats hold counts exactly up to 2^24, and every larger one is a whole number.
  func counts(_ range: Range<Int>, most: Double, together: Bool) throws(USAEError) -> [Int] {
    let limit = most * (1 + Self.rounding)
    var counts: [Int] = []
    counts.reserveCapacity(range.count)
    var total = 0.0
    for place in range {
      let number = numbers[place]
      guard number >= 0, number == number.rounded(.down), Double(number) <= limit else {
        throw refuse("whole numbers from 0 to \(Int(most))", got: "\(number) at position \(place)")
      }
      counts.append(Int(number))
      total += Double(number)
    }
    guard !together || total <= limit else { throw refuse("\(Int(most)) in all at most", got: "\(total)") }
    return counts
  }

  /// Largest relative error of a sum of counts that floats do not hold exactly.
  private static let rounding = 0x1p-10

  /// Whether a count is what another exchange says: exactly, where floats are exact.
  static func agrees(_ count: Int, with other: Int) -> Bool {
    let larger = max(count, other)
    return count == other || larger > 1 << 24 && Double(abs(count - other)) <= rounding * Double(larger)
  }
}
